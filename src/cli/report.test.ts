import { expect, test } from 'vitest';
import type { Clock } from '../runtime/clock.ts';
import { report } from './report.ts';

function start({ firstPass = Promise.resolve(), watchdogMs }: { firstPass?: Promise<void>; watchdogMs?: number } = {}) {
  const said: string[] = [];
  const sleeps: { ms: number; end(): void }[] = [];
  const stopping = new AbortController();
  const clock: Clock = {
    now: () => 0,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        sleeps.push({ ms, end: resolve });
        signal?.addEventListener('abort', () => resolve(), { once: true });
      }),
  };
  const notifier = {
    watchdogMs,
    ready: async (status: string) => void said.push(`ready: ${status}`),
    alive: async (status: string) => void said.push(`alive: ${status}`),
    stopping: async () => undefined,
  };
  const daemon = { firstPass, alive: true, status: 'all well', isAlive: () => daemon.alive, describe: () => daemon.status };
  const ended = report(notifier, daemon, clock, stopping.signal);
  return { said, sleeps, stopping, daemon, ended };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

async function turn(sleeps: { end(): void }[]): Promise<void> {
  await settle();
  sleeps.at(-1)?.end();
  await settle();
}

test('the watchdog is told that we live only while the loops turn, and again once they do', async () => {
  const { said, sleeps, daemon, stopping, ended } = start({ watchdogMs: 30_000 });
  await turn(sleeps);
  expect(said).toEqual(['ready: all well', 'alive: all well', 'alive: all well']);
  daemon.alive = false;
  await turn(sleeps);
  await turn(sleeps);
  expect(said).toHaveLength(3);
  Object.assign(daemon, { alive: true, status: 'better' });
  await turn(sleeps);
  expect(said.at(-1)).toBe('alive: better');
  stopping.abort();
  await ended;
});

test.each([
  [30_000, 10_000],
  [6_000, 2_000],
  [600_000, 10_000],
  [undefined, 10_000],
])('a watchdog of %s ms is told every %s ms', async (watchdogMs, intervalMs) => {
  const { sleeps, stopping, ended } = start({ ...(watchdogMs && { watchdogMs }) });
  await settle();
  expect(sleeps.at(-1)?.ms).toBe(intervalMs);
  stopping.abort();
  await ended;
});

test('ready once every loop has turned, or after 20 s without that; never once we were told to stop', async () => {
  const first = Promise.withResolvers<void>();
  const turned = start({ firstPass: first.promise });
  await settle();
  expect(turned.said).toEqual([]);
  first.resolve();
  await settle();
  expect(turned.said[0]).toBe('ready: all well');
  const overdue = start({ firstPass: Promise.withResolvers<void>().promise });
  expect(overdue.sleeps.map(({ ms }) => ms)).toEqual([20_000]);
  await turn(overdue.sleeps);
  expect(overdue.said[0]).toBe('ready: all well');
  const stopped = start({ firstPass: Promise.withResolvers<void>().promise });
  stopped.stopping.abort();
  await stopped.ended;
  expect(stopped.said).toEqual([]);
  for (const { stopping, ended } of [turned, overdue]) {
    stopping.abort();
    await ended;
  }
});
