import { readFileSync } from 'node:fs';

/** The systemd unit that a process runs in; undefined where it is in none, is gone, or may not be seen. */
export function readUnitOf(pid: number, of: 'system' | 'user'): string | undefined {
  try {
    return unitOfCgroup(readFileSync(`/proc/${pid}/cgroup`, 'utf8'), of);
  } catch {
    return undefined;
  }
}

/**
 * From the text of /proc/PID/cgroup. The first service or scope of the path is the system manager's; below `user@UID.service` the
 * next one is that user's manager's.
 */
export function unitOfCgroup(text: string, of: 'system' | 'user'): string | undefined {
  const path = /^0::(\/.+)$/m.exec(text)?.[1] ?? /^\d+:name=systemd:(\/.+)$/m.exec(text)?.[1];
  const units = (path ?? '')
    .split('/')
    .filter((part) => /\.(service|scope)$/.test(part))
    .map(unescaped);
  const users = units.findIndex((unit) => unit.startsWith('user@'));
  if (of === 'user') return users === -1 ? undefined : units[users + 1];
  return units[0];
}

/** systemd puts `_` before a name that the kernel could take for a file of its own (`memory.service`), and before one that begins so. */
const unescaped = (part: string) => (part.startsWith('_') ? part.slice(1) : part);
