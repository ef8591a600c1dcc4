import { expect, test } from 'vitest';
import type { Clock } from './clock.ts';
import type { Logger } from './logger.ts';
import { type PassResult, startLoop } from './loop.ts';

/** A clock whose sleeps end when the test says so. */
function createManualClock() {
  const sleeps: { ms: number; end(): void }[] = [];
  let now = 0;
  const clock: Clock = {
    now: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const end = () => {
          now += ms;
          resolve();
        };
        if (signal?.aborted) resolve();
        signal?.addEventListener('abort', () => resolve(), { once: true });
        sleeps.push({ ms, end });
      }),
  };
  return { clock, sleeps };
}

const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined } as unknown as Logger;

function start(pass: () => Promise<PassResult>, intervalMs = 1000) {
  const { clock, sleeps } = createManualClock();
  const logged: string[] = [];
  const observed: unknown[] = [];
  const log = {
    debug: () => undefined,
    info: (_: object, text: string) => logged.push(`info ${text}`),
    warn: () => undefined,
    error: (_: object, text: string) => logged.push(`error ${text}`),
  } as unknown as Logger;
  const loop = startLoop({ name: 'test', intervalMs, jitter: 0, pass }, { clock, log, observe: (_, __, error) => observed.push(error) });
  return { loop, sleeps, logged, observed };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

async function turn(sleeps: { end(): void }[]): Promise<void> {
  await settle();
  sleeps.at(-1)?.end();
  await settle();
}

test('a pass runs, then sleeps its interval, or what it asks for', async () => {
  let passes = 0;
  const { loop, sleeps } = start(async () => (++passes === 2 ? { againInMs: 7 } : undefined));
  await turn(sleeps);
  await turn(sleeps);
  expect(sleeps.map(({ ms }) => ms)).toEqual([1000, 7, 1000]);
  expect(passes).toBe(3);
  await loop.stop();
});

test('a failure is logged once per change, retried with backoff, and its end is said', async () => {
  const outcomes = ['down', 'down', 'denied', 'ok', 'ok'];
  const { loop, sleeps, logged, observed } = start(async () => {
    const outcome = outcomes.shift();
    if (outcome !== 'ok') throw new Error(outcome);
    return undefined;
  });
  for (let index = 0; index < 4; index++) await turn(sleeps);
  expect(logged).toEqual(['error loop failed, will retry', 'error loop failed, will retry', 'info loop recovered']);
  expect(observed.map((error) => error === undefined)).toEqual([false, false, false, true, true]);
  const waits = sleeps.map(({ ms }) => ms);
  expect(waits[1]).toBeLessThanOrEqual(waits[2] as number);
  expect(waits[3]).toBe(1000);
  await loop.stop();
});

test('a loop that seldom turns is retried soon all the same, and never more slowly than it turns', async () => {
  const { loop, sleeps } = start(() => Promise.reject(new Error('down')), 20_000);
  for (let index = 0; index < 8; index++) await turn(sleeps);
  expect(sleeps.map(({ ms }) => ms)).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000]);
  await loop.stop();
});

test('a pass that did not come to its work has neither failed nor recovered', async () => {
  const outcomes = ['down', 'idle', 'down', 'idle', 'ok'];
  const { loop, sleeps, logged } = start(async () => {
    const outcome = outcomes.shift();
    if (outcome === 'down') throw new Error(outcome);
    return outcome === 'idle' ? { againInMs: 7, idle: true } : undefined;
  });
  for (let index = 0; index < 4; index++) await turn(sleeps);
  expect(sleeps.map(({ ms }) => ms)).toEqual([500, 7, 1000, 7, 1000]);
  expect(logged).toEqual(['error loop failed, will retry', 'info loop recovered']);
  await loop.stop();
});

test('a wake ends the wait; one during a pass runs one more after it', async () => {
  let passes = 0;
  const gate = Promise.withResolvers<void>();
  const { loop } = start(async () => {
    passes += 1;
    if (passes === 2) await gate.promise;
    return undefined;
  });
  await settle();
  loop.wake();
  await settle();
  expect(passes).toBe(2);
  loop.wake();
  gate.resolve();
  await settle();
  expect(passes).toBe(3);
  await loop.stop();
});

test('stop waits for the pass under way and begins no other', async () => {
  let passes = 0;
  const gate = Promise.withResolvers<void>();
  const { loop } = start(async () => {
    passes += 1;
    await gate.promise;
    return undefined;
  });
  let stopped = false;
  const stopping = loop.stop().then(() => {
    stopped = true;
  });
  await settle();
  expect(stopped).toBe(false);
  gate.resolve();
  await stopping;
  expect(passes).toBe(1);
});

test('a pass that hangs is a silence, longer than is normal when it exceeds its limit; one that ends breaks it', async () => {
  const gate = Promise.withResolvers<void>();
  const { clock, sleeps } = createManualClock();
  const pass = async () => {
    await gate.promise;
    return undefined;
  };
  const loop = startLoop(
    { name: 'test', intervalMs: 1_000, jitter: 0, passLimitMs: 60_000, pass },
    { clock, log: silent, observe: () => undefined },
  );
  const isSilent = () => clock.now() - loop.progress().turnedAt > loop.progress().silenceLimitMs;
  const wait = async (ms: number) => {
    const waited = clock.sleep(ms);
    sleeps.at(-1)?.end();
    await waited;
  };
  await wait(60_000);
  expect(isSilent()).toBe(false);
  await wait(10_000);
  expect(isSilent()).toBe(true);
  gate.resolve();
  await settle();
  expect(isSilent()).toBe(false);
  await loop.stop();
});
