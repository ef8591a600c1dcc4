import { expect, test } from 'vitest';
import { applyPoisonLimit, type Policy, type ResolvedPolicy } from '../actions/limits.ts';
import { systemClock } from '../runtime/clock.ts';
import { type AttemptQuestion, createPolicyResolver, type PolicySources, type ResolvePolicy } from './policy.ts';

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
  ['a person names fail', { ...resolved('fail'), source: 'operator' }, 3, 'fail', true],
  ['a person names discard below the limit', { ...resolved('discard'), source: 'operator' }, 2, 'discard', false],
])('poison: %s', (_, policy, recoveries, expected, poison) => {
  expect(applyPoisonLimit(policy, recoveries)).toEqual({ policy: expected, poison });
});

const asked = (jobId: string): AttemptQuestion => ({ queue: 'asks', jobId, retryCount: 0, verdict: 'dead', executorId: 'e' });

/** Where nothing but the function has a say; `errors` is what it was told to have failed with. */
function createAsked(resolvePolicy: ResolvePolicy, more: Partial<PolicySources> = {}) {
  const errors: unknown[] = [];
  const resolver = createPolicyResolver({
    resolvePolicy,
    configured: [],
    table: [],
    defaults: { policy: 'restart', maxRecoveries: 3, poison: 'hold' },
    onError: (error) => errors.push(error),
    clock: systemClock,
    ...more,
  });
  return { ...resolver, errors };
}

test.each<[string, () => Policy | undefined, Policy, number]>([
  ['discard', () => 'discard', 'discard', 0],
  ['nothing', () => undefined, 'restart', 0],
  ['nonsense', () => 'explode' as Policy, 'restart', 1],
  [
    'a fault',
    () => {
      throw new Error('no');
    },
    'restart',
    1,
  ],
])('a policy function that answered %s is not asked the same again, and its failure is told once', async (_, answer, policy, failures) => {
  const questions: string[] = [];
  const answers = { said: new Map(), isClosed: false };
  const errors: unknown[] = [];
  const resolvePolicy: ResolvePolicy = ({ verdict }) => {
    questions.push(verdict);
    return answer();
  };
  const ask = (verdict: string, jobId = '1') =>
    createAsked(resolvePolicy, { answers, onError: (error) => errors.push(error) }).resolve({ ...asked(jobId), verdict });
  const [first, second] = await Promise.all([ask('dead'), ask('dead')]);
  expect(first.policy).toBe(policy);
  expect([second, await ask('dead')]).toEqual([first, first]);
  expect([questions, errors.length]).toEqual([['dead'], failures]);
  await ask('dead', '2');
  expect(questions).toEqual(['dead', 'dead']);
  answers.isClosed = true;
  // As good as dead: the same question.
  expect(await ask('missing')).toEqual(first);
  expect(await ask('dead', '3')).toMatchObject({ policy: 'restart', source: 'default' });
  expect(questions).toEqual(['dead', 'dead']);
});

test('a policy function that does not answer is a fault after five seconds: the lists decide', async () => {
  const clock = { now: () => 0, sleep: async (ms: number) => expect(ms).toBe(5_000) };
  const { resolve, errors } = createAsked(() => new Promise(() => undefined), { clock });
  expect(await resolve(asked('1'))).toMatchObject({ policy: 'restart', source: 'default' });
  expect(errors.map(String)).toEqual(['PolicyUnanswered: resolvePolicy has not answered within 5 s']);
});

const THOUSAND = Array.from({ length: 1_000 }, (_, index) => asked(String(index)));

test('a policy function is asked about so many attempts at once, whoever asks', async () => {
  let [underWay, most] = [0, 0];
  const { resolve } = createAsked(async (): Promise<Policy> => {
    underWay += 1;
    most = Math.max(most, underWay);
    await new Promise(setImmediate);
    underWay -= 1;
    return 'discard';
  });
  const resolved = await Promise.all(THOUSAND.map(resolve));
  expect(most).toBe(16);
  expect(new Set(resolved.map(({ source }) => source))).toEqual(new Set(['function']));
});

test('a policy function that does not answer is left in peace for a while, and asked again; one that misses some answers goes on being asked', async () => {
  let waited = 0;
  let now = 0;
  const clock = {
    now: () => now,
    sleep: async (_: number, signal?: AbortSignal) => {
      await new Promise(setImmediate);
      if (!signal?.aborted) waited += 1;
    },
  };
  const silent = createAsked(() => new Promise(() => undefined), { clock });
  await Promise.all(THOUSAND.map(silent.resolve));
  expect(silent.errors).toHaveLength(1_000);
  expect(waited).toBeLessThanOrEqual(32);
  let answers = false;
  const stalled = createAsked(() => (answers ? 'discard' : new Promise<never>(() => undefined)), { clock });
  await Promise.all(THOUSAND.map(stalled.resolve));
  answers = true;
  expect(await stalled.resolve(asked('soon'))).toMatchObject({ source: 'default' });
  now += 5_000;
  const later = await Promise.all(THOUSAND.map(stalled.resolve));
  expect(new Set(later.map(({ source }) => source))).toEqual(new Set(['function']));
  const some = createAsked(({ jobId }) => (jobId.endsWith('0') ? new Promise<never>(() => undefined) : 'discard'), { clock });
  const resolved = await Promise.all(THOUSAND.map(some.resolve));
  expect(resolved.filter(({ source }) => source === 'function')).toHaveLength(900);
});
