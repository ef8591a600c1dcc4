import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';

/** A process's own clock: it only bounds waiting. Ages and cut-offs are the database's business. */
export interface Clock {
  /** Monotonic milliseconds; only differences mean anything. */
  now(): number;
  /** Resolves after `ms`, or at once (never rejects) when `signal` aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Node's timers hold 31 bits: a longer wait would end at once. Whoever sleeps looks again anyway. */
const LONGEST_SLEEP_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => performance.now(),
  sleep: async (ms, signal) => {
    await delay(Math.min(ms, LONGEST_SLEEP_MS), undefined, signal ? { signal } : {}).catch((cause: unknown) => {
      if (!signal?.aborted) throw cause;
    });
  },
};
