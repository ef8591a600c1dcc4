import { readFileSync } from 'node:fs';

/** The systemd unit that a process runs in; undefined where it is in none, is gone, or may not be seen. */
export function readUnitOf(pid: number, of: 'system' | 'user'): string | undefined {
  try {
    return unitOfCgroup(readFileSync(`/proc/${pid}/cgroup`, 'utf8'), of, process.getuid?.() ?? 0);
  } catch {
    return undefined;
  }
}

/**
 * From the text of /proc/PID/cgroup. The first service or scope of the path is the system manager's; below `user@UID.service` the
 * next one is that user's manager's. Another user's units may have the names of ours.
 * @param uid of the user whose manager is meant.
 */
export function unitOfCgroup(text: string, of: 'system' | 'user', uid: number): string | undefined {
  const path = /^0::(\/.+)$/m.exec(text)?.[1] ?? /^\d+:name=systemd:(\/.+)$/m.exec(text)?.[1];
  const units = (path ?? '')
    .split('/')
    .filter((part) => /\.(service|scope)$/.test(part))
    .map(unescaped);
  if (of === 'system') return units[0];
  return units[0] === `user@${uid}.service` ? units[1] : undefined;
}

/** systemd puts `_` before a name that the kernel could take for a file of its own (`memory.service`), and before one that begins so. */
const unescaped = (part: string) => (part.startsWith('_') ? part.slice(1) : part);
