import { expect, test } from 'vitest';
import { createSeenStops } from './seen-stops.ts';

const UNIT = 'a.service';
const [FIRST, SECOND] = ['1'.repeat(32), '2'.repeat(32)];

type Step =
  | [activeState: string, invocationId: string, job?: string]
  | { job: string; result?: string; type?: string }
  | { began: string; type: string };

function seen(steps: readonly Step[]): boolean {
  const stops = createSeenStops();
  let said = false;
  for (const step of steps) {
    if (Array.isArray(step)) {
      said = stops.noteState({ unit: UNIT, activeState: step[0], invocationId: step[1], job: step[2] ?? null });
      continue;
    }
    if (step.type !== undefined) stops.noteJobType('began' in step ? step.began : step.job, step.type);
    if ('began' in step) continue;
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
  [
    'a slow start, and a crash at once',
    [{ began: '1', type: 'start' }, ['activating', FIRST, '1'], { job: '1' }, ['failed', FIRST]],
    false,
  ],
  ['a slow start, over before it could be told, and a crash', [['activating', FIRST, '1'], { job: '1' }, ['failed', FIRST]], false],
  [
    'a stop on the way up',
    [{ began: '1', type: 'start' }, ['activating', FIRST, '1'], { job: '1', result: 'canceled' }, { job: '2' }, ['failed', FIRST]],
    true,
  ],
  ['a stop between two tries', [['activating', FIRST], { job: '1' }, ['inactive', FIRST]], true],
  ['a restart by systemd between two tries', [['activating', FIRST], { job: '1' }, ['failed', SECOND]], false],
  ['a start limit that is hit between two tries', [['activating', FIRST], { job: '1', result: 'failed' }, ['failed', FIRST]], false],
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
  stops.noteState({ unit: UNIT, activeState: 'active', invocationId: FIRST, job: null });
  stops.noteJobEnd('1', UNIT, 'done');
  stops.forget(UNIT);
  expect(stops.noteState({ unit: UNIT, activeState: 'failed', invocationId: FIRST, job: null })).toBe(false);
});
