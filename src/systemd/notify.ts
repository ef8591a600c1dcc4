import { execFile } from 'node:child_process';

/** What a service of Type=notify tells its manager. Never throws: who cannot be told is not waited for. */
export interface Notifier {
  /** How often the watchdog wants to hear that we are alive; undefined where there is none. */
  readonly watchdogMs: number | undefined;
  ready(status: string): Promise<void>;
  alive(status: string): Promise<void>;
  stopping(): Promise<void>;
}

/** A message that is not taken within this time is given up. */
const PATIENCE_MS = 5_000;

/**
 * Through `systemd-notify`: Node has no datagram sockets of the unix kind. Needs NotifyAccess=all.
 * @param environment NOTIFY_SOCKET and WATCHDOG_USEC as the manager set them. @returns undefined where it set none.
 */
export function createNotifier(environment: Record<string, string | undefined>, command = 'systemd-notify'): Notifier | undefined {
  const socket = environment['NOTIFY_SOCKET'];
  if (!socket) return undefined;
  const microseconds = Number(environment['WATCHDOG_USEC']);
  const env = { PATH: '/usr/bin:/bin', NOTIFY_SOCKET: socket };
  const say = (...words: string[]) =>
    new Promise<void>((done) => {
      execFile(command, words, { env, timeout: PATIENCE_MS }, () => done());
    });
  return {
    watchdogMs: microseconds > 0 ? microseconds / 1000 : undefined,
    ready: (status) => say('--ready', `--status=${status}`),
    alive: (status) => say(`--status=${status}`, 'WATCHDOG=1'),
    stopping: () => say('--status=stopping', 'STOPPING=1'),
  };
}
