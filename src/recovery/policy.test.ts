import { expect, test } from 'vitest';
import { applyPoisonLimit, type ResolvedPolicy } from '../actions/limits.ts';

const resolved = (policy: ResolvedPolicy['policy'], maxRecoveries = 3, poison: 'discard' | 'hold' = 'discard'): ResolvedPolicy => ({
  policy,
  source: 'default',
  maxRecoveries,
  poison,
});

test.each<[string, ResolvedPolicy, number, string, boolean]>([
  ['below the limit', resolved('fail'), 2, 'fail', false],
  ['at the limit', resolved('fail'), 3, 'discard', true],
  ['restart too', resolved('restart'), 3, 'discard', true],
  ['held instead', resolved('restart', 1, 'hold'), 1, 'hold', true],
  ['none allowed', resolved('fail', 0), 0, 'discard', true],
  ['discard was meant anyway', resolved('discard'), 9, 'discard', false],
  ['hold was meant anyway', resolved('hold'), 9, 'hold', false],
])('poison: %s', (_, policy, recoveries, expected, poison) => {
  expect(applyPoisonLimit(policy, recoveries)).toEqual({ policy: expected, poison });
});
