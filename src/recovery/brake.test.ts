import { expect, test } from 'vitest';
import { applyBrake, type Candidate } from './brake.ts';

const LIMITS = { percent: 55, minimum: 3 };

const BEAT = { beatSeconds: 30, missingAfter: 90 };
const missing = (id: string, silentSeconds: number): Candidate => ({
  id,
  verdict: 'missing',
  silentSeconds,
  ageSeconds: silentSeconds + 600,
  ...BEAT,
});
const living = (id: string, ageSeconds = 10_000): Candidate => ({ id, verdict: 'alive', silentSeconds: 1, ageSeconds, ...BEAT });
const group = (count: number, make: (id: string) => Candidate, prefix: string) =>
  Array.from({ length: count }, (_, index) => make(`${prefix}${index}`));

test.each<[string, Candidate[], number]>([
  ['nobody is missing', group(5, living, 'l'), 0],
  ['two of two: below the minimum', group(2, (id) => missing(id, 100), 'm'), 0],
  ['three of three', group(3, (id) => missing(id, 100), 'm'), 3],
  ['three of six: half is not more than 55 %', [...group(3, (id) => missing(id, 100), 'm'), ...group(3, living, 'l')], 0],
  ['five of nine: 55.6 %', [...group(5, (id) => missing(id, 100), 'm'), ...group(4, living, 'l')], 5],
  ['eleven of twenty: 55 % exactly', [...group(11, (id) => missing(id, 100), 'm'), ...group(9, living, 'l')], 0],
  [
    'silent one after another over hours is churn, not a mass failure',
    [missing('a', 1000), missing('b', 5000), missing('c', 9000), living('l')],
    0,
  ],
  [
    'those that began afterwards do not dilute it',
    [...group(3, (id) => missing(id, 500), 'm'), ...group(10, (id) => living(id, 100), 'new')],
    3,
  ],
  ['an old loner goes on while a group is held', [missing('old', 9000), ...group(3, (id) => missing(id, 100), 'm')], 3],
  [
    'those that hang fell silent, too',
    [...group(2, (id) => missing(id, 100), 'm'), ...group(3, (id) => ({ ...missing(id, 95), verdict: 'hung' }), 'h')],
    2,
  ],
  [
    'those that lived on and have stopped since do dilute it',
    [...group(3, (id) => missing(id, 500), 'm'), ...group(4, (id) => ({ ...living(id), verdict: 'stopped', silentSeconds: 499 }), 's')],
    0,
  ],
  [
    'those that had stopped before do not',
    [...group(3, (id) => missing(id, 500), 'm'), ...group(4, (id) => ({ ...living(id), verdict: 'stopped', silentSeconds: 501 }), 's')],
    3,
  ],
  [
    'nor do those that died before they could tell',
    [...group(3, (id) => missing(id, 500), 'm'), ...group(4, (id) => ({ ...living(id), verdict: 'dead', silentSeconds: 471 }), 'd')],
    3,
  ],
  [
    'those that died later lived on then',
    [
      ...group(3, (id) => missing(id, 9000), 'a'),
      ...group(3, (id) => missing(id, 6000), 'b'),
      ...group(3, (id) => missing(id, 3000), 'c'),
      missing('d', 100),
      ...group(2, living, 'l'),
    ].map((executor) => ({ ...executor, ageSeconds: 10_000 })),
    0,
  ],
  [
    'those that beat too slowly to be waited for live on',
    [...group(3, (id) => missing(id, 100), 'm'), ...group(3, (id) => ({ ...living(id), silentSeconds: 900, beatSeconds: 3600 }), 'l')],
    0,
  ],
  ['nobody knows of one that was never heard of', [...group(3, (id) => missing(id, 100), 'm'), { ...living('x'), silentSeconds: null }], 3],
  ['proven deaths do not count', group(9, (id) => ({ ...missing(id, 100), verdict: 'dead' }), 'd'), 0],
])('%s', (_, executors, braked) => {
  expect(applyBrake(executors, LIMITS).braked.size).toBe(braked);
});

/** Beaten last at any time before the cut, each at its own. */
const cutOff = (seconds: number, phases: readonly number[], beatSeconds: number, missingBeats = 3): Candidate[] =>
  phases.map((phase, index) => {
    const silentSeconds = seconds + phase * beatSeconds;
    const beats = silentSeconds / beatSeconds;
    const verdict = beats > missingBeats ? 'missing' : beats > 2 ? 'late' : 'alive';
    return {
      id: `${beatSeconds}-${index}`,
      verdict,
      silentSeconds,
      ageSeconds: 3600,
      beatSeconds,
      missingAfter: missingBeats * beatSeconds,
    };
  });
const PHASES = [0, 0.17, 0.34, 0.5, 0.67, 0.84];

test.each<[string, (seconds: number) => Candidate[]]>([
  ['of one pace', (seconds) => cutOff(seconds, PHASES, 10)],
  ['of which most beat slowly', (seconds) => [...cutOff(seconds, [0.3, 0.9], 10), ...cutOff(seconds, PHASES, 60)]],
])('whatever silences a fleet at once (%s) takes nobody, from the first that is missing on', (_, fleet) => {
  for (let seconds = 0; seconds < 300; seconds++) {
    const executors = fleet(seconds);
    const { braked, doubtful } = applyBrake(executors, LIMITS);
    const taken = executors.filter(({ id, verdict }) => verdict === 'missing' && !braked.has(id) && !doubtful.has(id));
    expect(taken, `after ${seconds} s`).toEqual([]);
  }
});

const beating = (seconds: number, beatSeconds: number) =>
  PHASES.map(
    (phase, index): Candidate => ({ ...living(`l${index}`), beatSeconds, silentSeconds: (seconds + phase * beatSeconds) % beatSeconds }),
  );

test('some that die among others that beat on are taken as soon as they are missing', () => {
  for (let seconds = 0; seconds < 60; seconds++) {
    const { braked, doubtful } = applyBrake([...cutOff(seconds, PHASES.slice(0, 4), 10), ...beating(seconds, 10)], LIMITS);
    expect(braked.size + doubtful.size, `after ${seconds} s`).toBe(0);
  }
});

test('where the others beat slowly they are in doubt, and taken once those have beaten since; the slowest are not waited for', () => {
  const dead = (seconds: number) => cutOff(seconds, [0.3, 0.9], 10);
  const look = (seconds: number, beatSeconds: number) => applyBrake([...dead(seconds), ...beating(seconds, beatSeconds)], LIMITS);
  expect(look(30, 60)).toMatchObject({ braked: new Set(), doubtful: new Set(['10-0', '10-1']) });
  expect(look(75, 60)).toEqual({ braked: new Set(), doubtful: new Set() });
  expect(look(30, 600)).toEqual({ braked: new Set(), doubtful: new Set() });
});
