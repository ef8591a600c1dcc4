import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

const STOP_LIMIT_MS = 10_000;

/** The command that runs `binary` as somebody Postgres accepts: it refuses root. */
export function unprivileged(binary: string, args: readonly string[]): [string, ...string[]] {
  // In a user namespace we are another user, and still root outside: the files stay ours.
  if (process.platform === 'linux' && process.getuid?.() === 0) return ['unshare', '--user', '--map-user=1000', '--', binary, ...args];
  return [binary, ...args];
}

/** A postmaster that is our child: `unshare` and `setpriv` become it, so its pid is the child's. */
export interface ServerProcess {
  pid: number;
  /** Why it is no longer there; undefined while it is. */
  ended(): string | undefined;
  stop(): Promise<void>;
  kill(): void;
}

export function spawnServer(binary: string, args: readonly string[], logFile: string): ServerProcess {
  // It goes down with us, however we end.
  const withUs =
    process.platform === 'linux' && existsSync('/usr/bin/setpriv') ? ['setpriv', '--pdeathsig', 'INT', '--', binary] : [binary];
  const [command, ...rest] = unprivileged(withUs[0] as string, [...withUs.slice(1), ...args]);
  const log = openSync(logFile, 'a', 0o600);
  // Its own process group: a Ctrl-C is for us, and we stop the server in order.
  const server = spawn(command, rest, { stdio: ['ignore', log, log], detached: true });
  closeSync(log);
  let end: string | undefined;
  const exited = new Promise<void>((done) => {
    const note = (reason: string) => {
      end ??= reason;
      done();
    };
    server.once('error', (error) => note(error.message));
    server.once('exit', (code, signal) => note(`it ended with ${signal ?? `code ${code}`}`));
  });
  return {
    pid: server.pid ?? 0,
    ended: () => end,
    kill: () => killWithBackends(server),
    stop: async () => {
      for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
        server.kill(signal);
        if (await Promise.race([exited.then(() => true), delay(STOP_LIMIT_MS, false, { ref: false })])) return;
      }
      killWithBackends(server);
      await exited;
    },
  };
}

/** A backend at work does not notice that its postmaster is gone, and the directory cannot be served before it is, too. */
function killWithBackends(server: ChildProcess): void {
  // Held still, it starts no backend that would be missed.
  if (!server.kill('SIGSTOP')) return;
  for (const pid of [...childrenOf(server.pid), server.pid]) if (pid) process.kill(pid, 'SIGKILL');
}

function childrenOf(pid: number | undefined): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
