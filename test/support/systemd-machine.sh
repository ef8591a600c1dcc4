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
After=dbus.service systemd-journald.service
[Service]
Type=oneshot
# What tmpfiles would have done, were it let loose here.
ExecStart=/bin/sh -c 'chgrp -R systemd-journal /run/log/journal; chmod -R g+rX /run/log/journal; find /run/log/journal -type d -exec chmod g+s {} +'
ExecStart=/bin/touch /run/machine-ready
UNIT

echo 0 > "$cgroup/cgroup.procs" 2>/dev/null || true
# Not chroot: who is in one may make no user namespace, and PrivateUsers= is one. Shared, as systemd leaves it to whoever boots it:
# the credentials of a service are mounted by a helper, and must be seen outside of it. The control groups are mounted from within
# their namespace: mounted before, they would be the host's, and shared by all machines.
cd "$root"
mkdir .host
pivot_root . .host
exec unshare --cgroup sh -c 'umount -l /.host && rmdir /.host && mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount --make-rshared / && exec env -i container=machine PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb /lib/systemd/systemd --system --unit=machine.target --log-target=journal-or-kmsg --log-level=info'
