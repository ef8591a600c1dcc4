import { expect, test } from 'vitest';
import { brakedExecutors, type Candidate } from './brake.ts';

const LIMITS = { percent: 55, minimum: 3 };

const missing = (id: string, silentSeconds: number): Candidate => ({
  id,
  verdict: 'missing',
  silentSeconds,
  ageSeconds: silentSeconds + 600,
  missingAfter: 90,
});
const living = (id: string, ageSeconds = 10_000): Candidate => ({ id, verdict: 'alive', silentSeconds: 1, ageSeconds, missingAfter: 90 });
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
  ['proven deaths do not count', group(9, (id) => ({ ...missing(id, 100), verdict: 'dead' }), 'd'), 0],
])('%s', (_, executors, braked) => {
  expect(brakedExecutors(executors, LIMITS).size).toBe(braked);
});
