import type { Clock } from './clock.ts';
import { errorFields, type Logger } from './logger.ts';

/** When a pass wants to run again, where that is not the loop's interval; `idle`: it did not come to its work, so it neither failed nor worked. */
export type PassResult = { againInMs?: number; idle?: true } | undefined;

export interface LoopDefinition {
  name: string;
  intervalMs: number;
  /** Fraction of the interval that is random; default 0.1. Spreads the nodes of a fleet. */
  jitter?: number;
  /** A pass under way for longer than this is no loop that turns; default two minutes, for those that do much. */
  passLimitMs?: number;
  pass(signal: AbortSignal): Promise<PassResult> | Promise<void>;
}

/** Told of every pass; how metrics learn of loops. */
export type PassObserver = (loop: string, seconds: number, error: unknown) => void;

export interface Loop {
  readonly name: string;
  /** Run the next pass now instead of waiting. A wake during a pass runs one more after it. */
  wake(): void;
  /** No further pass begins; resolves when the one under way has ended. */
  stop(): Promise<void>;
  /** Monotonic time of the last turn, and the longest silence that is normal. */
  progress(): { turnedAt: number; silenceLimitMs: number };
}

const PASS_LIMIT_MS = 120_000;
/** Short, for after an outage the dead wait for us. A loop that turns more slowly is not retried more slowly than it turns. */
const BACKOFF_LIMIT_MS = 5_000;

export function startLoop(definition: LoopDefinition, dependencies: { clock: Clock; log: Logger; observe: PassObserver }): Loop {
  const { name, intervalMs, jitter = 0.1, passLimitMs = PASS_LIMIT_MS } = definition;
  const { clock, log, observe } = dependencies;
  const stopping = new AbortController();
  let waking = new AbortController();
  let woken = false;
  let turnedAt = clock.now();
  let failures = 0;
  let loggedFailure: string | undefined;

  async function runPass(): Promise<number> {
    const startedAt = clock.now();
    let error: unknown;
    let result: PassResult;
    try {
      result = (await definition.pass(stopping.signal)) ?? undefined;
    } catch (cause) {
      error = cause;
    }
    turnedAt = clock.now();
    observe(name, (turnedAt - startedAt) / 1000, error);
    if (error !== undefined && !stopping.signal.aborted) {
      failures += 1;
      const said = errorFields(error).error;
      if (said !== loggedFailure) log.error({ loop: name, ...errorFields(error) }, 'loop failed, will retry');
      loggedFailure = said;
      return Math.min(Math.max(intervalMs, BACKOFF_LIMIT_MS), 250 * 2 ** Math.min(failures, 20));
    }
    const wait = result?.againInMs ?? intervalMs;
    if (result?.idle) return wait;
    if (loggedFailure !== undefined) log.info({ loop: name, failures }, 'loop recovered');
    failures = 0;
    loggedFailure = undefined;
    return wait;
  }

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      woken = false;
      const wait = await runPass();
      if (woken || stopping.signal.aborted) continue;
      waking = new AbortController();
      await clock.sleep(wait * (1 + jitter * Math.random()), AbortSignal.any([stopping.signal, waking.signal]));
    }
  }

  const ended = run();
  return {
    name,
    wake: () => {
      woken = true;
      waking.abort();
    },
    stop: async () => {
      stopping.abort();
      await ended;
    },
    progress: () => ({ turnedAt, silenceLimitMs: Math.max(BACKOFF_LIMIT_MS, intervalMs) * 1.5 + passLimitMs }),
  };
}
