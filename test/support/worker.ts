import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { underHostname } from './hostname.ts';
import { waitFor } from './wait.ts';
import type { WorkerOptions } from './worker-main.ts';

/** Gives the process the pid `$0` in its namespace. The last word keeps the shell from becoming that process itself. */
const FORK_AS = 'echo $(($0 - 1)) > /proc/sys/kernel/ns_last_pid; "$@"; exit $?';
const MAIN = fileURLToPath(new URL('./worker-main.ts', import.meta.url));

export interface WorkerEvent {
  event: 'ready' | 'started' | 'finished' | 'error';
  id?: string;
  queue?: string;
  retryCount?: number;
  instance?: string;
  message?: string;
}

export interface Worker {
  /** Of the process on this host. */
  pid: number;
  /** Its id in pg-boss's registry, which is its executor id. */
  instance: string;
  events: WorkerEvent[];
  started(count: number): Promise<WorkerEvent[]>;
  kill(signal: NodeJS.Signals): void;
  exited: Promise<void>;
}

/**
 * A real worker process, gone at the end of the test.
 * As root it may be given another host name, and a pid namespace of its own, with the pid that it has in there.
 */
export async function spawnWorker(options: WorkerOptions & { hostname?: string; ownPids?: true | number }): Promise<Worker> {
  const { hostname, ownPids, ...workerOptions } = options;
  const node = [process.execPath, MAIN, JSON.stringify(workerOptions)];
  const renamed = underHostname(hostname, node);
  const numbered = typeof ownPids === 'number' ? ['sh', '-c', FORK_AS, String(ownPids), ...renamed] : renamed;
  const [command, ...args] = (ownPids ? ['unshare', '--pid', '--fork', '--kill-child', ...numbered] : numbered) as [string, ...string[]];
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const events: WorkerEvent[] = [];
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaints += chunk.toString();
  });
  createInterface({ input: child.stdout }).on('line', (line) => events.push(JSON.parse(line) as WorkerEvent));
  const exited = new Promise<void>((done) => child.once('exit', () => done()));
  onTestFinished(async () => {
    child.kill('SIGCONT');
    child.kill('SIGKILL');
    await exited;
  });
  const ready = await waitFor('a worker to be ready', () => {
    if (child.exitCode !== null) throw new Error(`the worker ended: ${complaints}`);
    return events.find(({ event }) => event === 'ready');
  });
  return {
    pid: child.pid ?? 0,
    instance: ready.instance ?? '',
    events,
    exited,
    kill: (signal) => void child.kill(signal),
    started: (count) =>
      waitFor(`${count} jobs to start`, () => {
        const started = events.filter(({ event }) => event === 'started');
        return started.length >= count && started;
      }),
  };
}
