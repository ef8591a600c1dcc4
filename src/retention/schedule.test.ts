import { expect, test } from 'vitest';
import { systemClock } from '../runtime/clock.ts';
import { createLogger } from '../runtime/logger.ts';
import { scheduleRetention } from './schedule.ts';

test('a schedule that is not due says so, and ends at once', () => {
  const told: string[] = [];
  const retention = scheduleRetention({
    config: { retentionSchedule: '0 0 29 2 *', retentionZone: 'UTC', node: 'a' },
    clock: systemClock,
    log: createLogger('silent', 'a'),
    onDue: () => told.push('due'),
  });
  retention.start();
  expect(retention.dueForSeconds()).toBe(undefined);
  retention.stop();
  expect(told).toEqual([]);
});

test("at its time, and after its node's own while, it is due until it is settled", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const waits: number[] = [];
  const clock = { ...systemClock, sleep: async (ms: number) => void waits.push(ms) };
  const retention = scheduleRetention({
    config: { retentionSchedule: '* * * * * *', retentionZone: undefined, node: 'a' },
    clock,
    log: createLogger('silent', 'a'),
    onDue: resolve,
  });
  retention.start();
  await promise;
  expect(waits[0]).toBeLessThan(300_000);
  expect(retention.dueForSeconds()).toBeGreaterThanOrEqual(0);
  retention.settle();
  expect(retention.dueForSeconds()).toBe(undefined);
  retention.stop();
});
