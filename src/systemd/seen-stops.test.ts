import { expect, test } from 'vitest';
import { createSeenStops } from './seen-stops.ts';

const UNIT = 'a.service';
const [FIRST, SECOND] = ['1'.repeat(32), '2'.repeat(32)];

type Step = [activeState: string, invocationId: string] | { job: string; result?: string; type?: string };

function seen(steps: readonly Step[]): boolean {
  const stops = createSeenStops();
  let said = false;
  for (const step of steps) {
    if (Array.isArray(step)) {
      said = stops.noteState({ unit: UNIT, activeState: step[0], invocationId: step[1] });
      continue;
    }
    if (step.type !== undefined) stops.noteJobType(step.job, step.type);
    stops.noteJobEnd(step.job, UNIT, step.result ?? 'done');
  }
  return said;
}

test.each<[string, Step[], boolean]>([
  ['a stop', [['active', FIRST], { job: '1' }, ['failed', FIRST]], true],
  ['a stop whose type is known', [['active', FIRST], { job: '1', type: 'stop' }, ['inactive', FIRST]], true],
  ['a stop that takes a while', [['active', FIRST], ['deactivating', FIRST], { job: '1' }, ['failed', FIRST]], true],
  [
    'a crash',
    [
      ['active', FIRST],
      ['failed', FIRST],
    ],
    false,
  ],
  ['a reload that it died of', [['active', FIRST], { job: '1', type: 'reload' }, ['failed', FIRST]], false],
  ['a reload that it survived, and a crash later', [['active', FIRST], { job: '1' }, ['active', FIRST], ['failed', FIRST]], false],
  ['a start that ended well, and a crash before anybody looked', [['failed', FIRST], { job: '1' }, ['failed', SECOND]], false],
  ['a slow start, and a crash at once', [['activating', FIRST], { job: '1' }, ['failed', FIRST]], false],
  ['a restart, and a crash', [['active', FIRST], { job: '1' }, ['failed', SECOND]], false],
  ['a stop that failed', [['active', FIRST], { job: '1', result: 'timeout' }, ['failed', FIRST]], false],
  ['a stop, and the next life', [['active', FIRST], { job: '1' }, ['failed', FIRST], ['active', SECOND], ['failed', SECOND]], false],
  ['a crash, and a job that did nothing', [['active', FIRST], ['failed', FIRST], { job: '1' }, ['failed', FIRST]], false],
  ['a job of a unit that was down', [['failed', FIRST], { job: '1' }, ['failed', FIRST]], false],
])('%s: %j is a stop: %s', (_, steps, expected) => {
  expect(seen(steps)).toBe(expected);
});

test('what systemd has forgotten is forgotten', () => {
  const stops = createSeenStops();
  stops.noteState({ unit: UNIT, activeState: 'active', invocationId: FIRST });
  stops.noteJobEnd('1', UNIT, 'done');
  stops.forget(UNIT);
  expect(stops.noteState({ unit: UNIT, activeState: 'failed', invocationId: FIRST })).toBe(false);
});
