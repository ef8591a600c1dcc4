import { expect, test } from 'vitest';
import { applyPoisonLimit, type ResolvedPolicy } from '../actions/limits.ts';
import { matchesQueue } from './policy.ts';

test.each([
  ['work', 'work', true],
  ['work', 'works', false],
  ['*', 'anything', true],
  ['charge-*', 'charge-card', true],
  ['charge-*', 'recharge-card', false],
  ['*-mail', 'send-mail', true],
  ['a*b*c', 'a-b-c', true],
  ['a*b*c', 'acb', false],
  ['a.b', 'axb', false],
  ['(x)*', '(x)y', true],
  ['a*', 'a\nb', true],
])('pattern %j and queue %j', (pattern, queue, matches) => {
  expect(matchesQueue(pattern, queue)).toBe(matches);
});

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
