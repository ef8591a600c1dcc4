import { type ChildProcess, fork } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Interrupted } from './interrupted.ts';

/** Runs from source and from dist: the worker lies beside this file, with its ending. */
const WORKER = fileURLToPath(new URL(`./worker${extname(import.meta.url)}`, import.meta.url));

export interface Worker {
  name: string;
  pid: number;
  /** Jobs that it has begun, in order. */
  started: string[];
  signal(name: NodeJS.Signals): void;
  exited: Promise<void>;
}

/** Real, separate worker processes; all of them end with the demo. */
export function createWorkers({ url, queue, jobMs, signal }: { url: string; queue: string; jobMs: number; signal: AbortSignal }) {
  const living = new Map<Worker, ChildProcess>();
  let count = 0;

  async function start(): Promise<Worker> {
    // Its own process group: a Ctrl-C is for us.
    const child = fork(WORKER, [queue, String(jobMs)], { stdio: 'ignore', execArgv: [], env: { DATABASE_URL: url }, detached: true });
    const started: string[] = [];
    const ready = Promise.withResolvers<void>();
    child.on('message', (message: 'ready' | { started: string }) => {
      if (message === 'ready') ready.resolve();
      else started.push(message.started);
    });
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    void exited.then(() => ready.reject(new Error('a demo worker ended before it was ready')));
    count += 1;
    const worker: Worker = { name: `worker-${count}`, pid: child.pid ?? 0, started, exited, signal: (name) => void child.kill(name) };
    living.set(worker, child);
    void exited.then(() => living.delete(worker));
    const interrupt = () => ready.reject(new Interrupted('interrupted'));
    signal.addEventListener('abort', interrupt);
    if (signal.aborted) interrupt();
    await ready.promise.finally(() => signal.removeEventListener('abort', interrupt));
    return worker;
  }

  return {
    start,
    all: () => [...living.keys()],
    killAll: async () => {
      const ended = [...living].map(([worker, child]) => {
        child.kill('SIGKILL');
        return worker.exited;
      });
      await Promise.all(ended);
    },
  };
}

export type Workers = ReturnType<typeof createWorkers>;
