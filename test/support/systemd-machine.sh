#!/bin/sh
# Becomes pid 1 of a machine: run by systemd-machine.ts in new pid, mount, ipc and uts namespaces, before the cgroup one.
# Nothing here may write to what it was started on: every directory is behind an overlay or a file system of its own.
# usage: systemd-machine.sh SCRATCH HOSTNAME BOOT_ID CGROUP [DIRECTORY...]   (directories that must be seen inside)
set -eu
scratch=$1 hostname=$2 boot_id=$3 cgroup=$4
shift 4
root=$scratch/root

mount --make-rprivate /
mount -t tmpfs -o mode=755 machine "$scratch"
mkdir "$root" "$scratch/upper" "$scratch/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
# From here on a mistake costs the overlay only.
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
  : > "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

number=0
for directory in "$@"; do
  case $directory/ in
    /tmp/* | /run/*) ;;
    *) [ "$(stat -c %m "$directory")" = / ] && continue ;;
  esac
  number=$((number + 1))
  mkdir -p "$root$directory" "$scratch/upper$number" "$scratch/work$number"
  mount -t overlay overlay -o "lowerdir=$directory,upperdir=$scratch/upper$number,workdir=$scratch/work$number" "$root$directory"
done
# Users of the machine reach them, wherever the checkout is.
for directory in "$@"; do
  while [ "$directory" != / ]; do
    chmod a+rx "$root$directory"
    directory=$(dirname "$directory")
  done
done

echo "$boot_id" > "$scratch/boot_id"
mount --bind "$scratch/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount --bind -o ro "$root/proc/sys" "$root/proc/sys" 2>/dev/null || true
mount --bind "$scratch/boot_id" "$root/proc/sys/kernel/random/boot_id"
for file in sysrq-trigger kmsg; do [ ! -e "$root/proc/$file" ] || mount --bind /dev/null "$root/proc/$file"; done

hostname "$hostname"
echo "$hostname" > "$root/etc/hostname"
tr -d - < "$scratch/boot_id" > "$root/etc/machine-id"
: > "$root/etc/fstab"

units=$root/etc/systemd/system
rm -rf "$units"
mkdir -p "$units"
for unit in $(cd "$root/usr/lib/systemd/system" && ls | grep -E '^(systemd-(udev|tmpfiles|sysctl|modules|random-seed|update|firstboot|timesyncd|networkd|resolved|binfmt|hwdb|pstore|boot|machine-id|sysusers|repart|remount|fsck|journal(-flush|-catalog|d-audit)|pcr|ask-password|hibernate|quota|rfkill|backlight)|dev-|sys-|proc-|kmod|modprobe@|tmp\.mount|getty|console|serial|ldconfig|apt-|dpkg-|e2scrub|fstrim|initrd)' | grep -v '@\.'); do
  ln -s /dev/null "$units/$unit"
done
cat > "$units/machine.target" <<UNIT
[Unit]
Requires=basic.target dbus.socket dbus.service machine-ready.service
After=basic.target
AllowIsolate=yes
UNIT
cat > "$units/machine-ready.service" <<UNIT
[Unit]
After=dbus.service
[Service]
Type=oneshot
ExecStart=/bin/touch /run/machine-ready
UNIT

echo 0 > "$cgroup/cgroup.procs" 2>/dev/null || true
exec unshare --cgroup env -i container=machine PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
  chroot "$root" /lib/systemd/systemd --system --unit=machine.target --log-target=journal-or-kmsg --log-level=info
