import { hostname, userInfo } from 'node:os';
import type { Surroundings } from './command.ts';

/** `<user>@<host>` of whoever runs the command; under sudo the person, not root. */
export function accountName(env: Surroundings['env']): string {
  const { uid, username } = readAccount();
  const person = uid === 0 ? (env['SUDO_USER'] ?? username) : username;
  return `${person}@${hostname()}`;
}

/** In a container a uid may have no name. */
function readAccount(): { uid: number; username: string } {
  try {
    return userInfo();
  } catch {
    const uid = process.getuid?.() ?? -1;
    return { uid, username: `uid-${uid}` };
  }
}
