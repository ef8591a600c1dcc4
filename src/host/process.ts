import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, statSync } from 'node:fs';

/** What identifies one life of a process on one boot of one host. */
export interface ProcessIdentity {
  pid: number;
  /** Start time in clock ticks since boot, field 22 of /proc/PID/stat: a recycled pid has another. */
  startTicks: number;
  ageSeconds: number;
  /** A thread of the kernel's own, or the init of a machine: nobody's worker. */
  ofMachine: boolean;
}

/** A process held in sight. Once it is gone it stays gone: the handle cannot drift to a successor of the pid. */
export interface ProcessHandle extends ProcessIdentity {
  isGone(): boolean;
  close(): void;
}

/** USER_HZ, which Linux fixes at 100 for every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;
const STAT_BUFFER = Buffer.alloc(1024);
/** PF_KTHREAD of the kernel. */
const KERNEL_THREAD = 0x0020_0000;

/** Changes with every boot; undefined where there is no Linux /proc. */
export function readBootId(): string | undefined {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** The pid namespace that we are in: pids seen from another one mean other processes. */
export function readPidNamespace(): string | undefined {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return undefined;
  }
}

/** PROC_PID_INIT_INO of the kernel: the pid namespace that all others are below. */
const INITIAL_NAMESPACE = 'pid:[4026531836]';
/** What runs as pid 1 of a machine, or of a container that is one. */
const MACHINE_INITS = new Set(['systemd', 'init']);

/**
 * Whether the pids that we see are all those of a machine. In an application's container they are not: others beside it may have the same host
 * name (a pod's containers, host networking), and their pids mean other processes here.
 */
export function seesWholeMachine(): boolean {
  try {
    if (readlinkSync('/proc/self') !== String(process.pid)) return false;
    return readPidNamespace() === INITIAL_NAMESPACE || MACHINE_INITS.has(readFileSync('/proc/1/comm', 'utf8').trim());
  } catch {
    return false;
  }
}

/** Seconds since this host booted, by its own monotonic clock. */
export function secondsSinceBoot(): number {
  return Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
}

/**
 * Opens /proc/PID/stat and keeps it open. The open file belongs to that process, not to the number: after the exit it
 * reads ESRCH even when the pid has been given to another process. One small read a check, no lookup.
 * @returns `gone` when there is no such process; `unknown` when that cannot be told, for want of rights or descriptors.
 */
export function openProcess(pid: number): ProcessHandle | 'gone' | 'unknown' {
  let descriptor: number;
  try {
    descriptor = openSync(`/proc/${pid}/stat`, 'r');
  } catch (error) {
    return isAbsence(error) && seesForeignProcesses() ? 'gone' : 'unknown';
  }
  const stat = readStat(descriptor);
  if (stat === 'unknown' || stat === 'gone' || stat.ended) {
    closeSync(descriptor);
    return stat === 'unknown' ? 'unknown' : 'gone';
  }
  let gone = false;
  return {
    pid,
    startTicks: stat.startTicks,
    ageSeconds: secondsSinceBoot() - stat.startTicks / TICKS_PER_SECOND,
    ofMachine: stat.ofKernel || (pid === 1 && seesWholeMachine()),
    isGone: () => {
      if (gone) return true;
      const now = readStat(descriptor);
      gone = now === 'gone' || (now !== 'unknown' && now.ended);
      return gone;
    },
    close: () => closeSync(descriptor),
  };
}

/**
 * Whether another process on this host carries the same number inside a pid namespace of its own (a container): then
 * the number alone does not say which of them registered. `unknown` when not every process can be looked at.
 */
export function isPidAmbiguous(pid: number): boolean | 'unknown' {
  try {
    if (!seesForeignProcesses()) return 'unknown';
    return readdirSync('/proc').some((entry) => {
      if (!/^\d+$/.test(entry)) return false;
      const numbers = readNamespacePids(entry);
      return numbers.length > 1 && numbers.at(-1) === pid;
    });
  } catch {
    return 'unknown';
  }
}

/**
 * Whether other users' processes are there to be seen. Where /proc is mounted with hidepid, they look as if they did not
 * exist; pid 1, which always exists, tells. If it is our own user's it is shown in any case, and the mount tells.
 */
function seesForeignProcesses(): boolean {
  try {
    closeSync(openSync('/proc/1/stat', 'r'));
    return statSync('/proc/1').uid !== process.getuid?.() || !hidesProcesses(readFileSync('/proc/self/mountinfo', 'utf8'));
  } catch {
    return false;
  }
}

/** Of the mounts on /proc the last one counts: it covers the others. */
export function hidesProcesses(mounts: string): boolean {
  const options = mounts
    .split('\n')
    .filter((line) => line.split(' ')[4] === '/proc')
    .at(-1)
    ?.split(' ')
    .at(-1);
  const hidepid = options?.split(',').find((option) => option.startsWith('hidepid='));
  return hidepid !== undefined && hidepid !== 'hidepid=0' && hidepid !== 'hidepid=off';
}

/** The pids of a process, from this namespace down to its own (NSpid of /proc/PID/status); none of one that has ended. */
function readNamespacePids(pid: string): number[] {
  try {
    const line = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return line?.[1] ? line[1].split(/\s+/).map(Number) : [];
  } catch (error) {
    if (isAbsence(error)) return [];
    throw error;
  }
}

interface ProcessStat {
  startTicks: number;
  ended: boolean;
  ofKernel: boolean;
}

function readStat(descriptor: number): ProcessStat | 'gone' | 'unknown' {
  let length: number;
  try {
    length = readSync(descriptor, STAT_BUFFER, 0, STAT_BUFFER.length, 0);
  } catch (error) {
    return isAbsence(error) ? 'gone' : 'unknown';
  }
  // The command name may hold spaces and parentheses; the fixed fields begin after the last one.
  const text = STAT_BUFFER.toString('latin1', 0, length);
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const state = fields[0];
  const ofKernel = (Number(fields[6]) & KERNEL_THREAD) !== 0;
  // A process whose first thread has ended looks like a zombie while its other threads go on; a real one has none but that.
  const ended = state === 'X' || (state === 'Z' && Number(fields[17]) <= 1);
  return { startTicks: Number(fields[19]), ended, ofKernel };
}

/** No other error says that there is no such process. */
function isAbsence(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ESRCH';
}
