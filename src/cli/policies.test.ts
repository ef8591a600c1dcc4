import { expect, test } from 'vitest';
import { set } from './policies.ts';
import { UsageError } from './usage-error.ts';

const SURROUNDINGS = { env: { DATABASE_URL: 'postgres://127.0.0.1:1/app' }, out: () => undefined, signal: new AbortController().signal };

test.each([
  ['', 'hold', {}, 'QUEUE: given ""'],
  [' ', 'hold', {}, 'QUEUE: given " "'],
  ['mail', 'keep', {}, 'POLICY: given keep'],
  [
    'mail',
    'hold',
    { staleAfter: '1ms' },
    '--stale-after: given 1ms; allowed: a duration such as 500ms, 30s, 2m, 1h or 7d, at least 1000ms',
  ],
  ['mail', 'hold', { staleAfter: '10' }, '--stale-after: given 10'],
  ['mail', 'hold', { maxRecoveries: '1001' }, '--max-recoveries: given 1001; allowed: a whole number from 0 to 1000'],
  ['mail', 'hold', { poison: 'fail' }, '--poison: given fail'],
])('a rule that the variable would not take is refused: %j %s %j', async (queue, policy, options, said) => {
  const error = await set(SURROUNDINGS, queue, policy, { ...options, actor: 'ann@desk' }).catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(UsageError);
  expect((error as Error).message).toContain(said);
});
