import { expect, test } from 'vitest';
import { applyPoisonLimit, type Policy, type ResolvedPolicy } from '../actions/limits.ts';
import { type AttemptQuestion, createPolicyResolver, remembering } from './policy.ts';

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

test.each<[string, () => Policy | undefined]>([
  ['restart', () => 'restart'],
  ['nothing', () => undefined],
  [
    'a fault',
    () => {
      throw new Error('no');
    },
  ],
])('a policy function that answered %s is not asked the same again', async (_, answer) => {
  const asked: string[] = [];
  const answers = new Map();
  const ask = (verdict: string) => {
    const resolve = remembering(async (attempt: AttemptQuestion) => {
      asked.push(attempt.verdict);
      return answer();
    }, answers);
    return resolve({ queue: 'mail', jobId: '1', retryCount: 0, verdict, executorId: 'e' });
  };
  const [first, second] = await Promise.allSettled([ask('dead'), ask('dead')]);
  expect(second).toEqual(first);
  expect((await Promise.allSettled([ask('dead')]))[0]).toEqual(first);
  expect(asked).toEqual(['dead']);
  await ask('missing').catch(() => undefined);
  expect(asked).toEqual(['dead', 'missing']);
});

test('a policy function that does not answer is a fault after five seconds: the lists decide', async () => {
  const errors: unknown[] = [];
  const resolver = createPolicyResolver({
    resolvePolicy: () => new Promise(() => undefined),
    configured: [],
    table: [],
    defaults: { policy: 'restart', maxRecoveries: 3, poison: 'hold' },
    onError: (error) => errors.push(error),
    clock: { now: () => 0, sleep: async (ms) => expect(ms).toBe(5_000) },
  });
  const asked = { queue: 'asks', jobId: '1', retryCount: 0, verdict: 'dead', executorId: 'e' };
  expect(await resolver.resolve(asked)).toMatchObject({ policy: 'restart', source: 'default' });
  expect(errors).toEqual([new Error('resolvePolicy has not answered within 5 s')]);
});
