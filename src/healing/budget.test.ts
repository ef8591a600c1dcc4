import { expect, test } from 'vitest';
import { judgeBudget, type PastHeal } from './budget.ts';

const LIMITS = { maxHeals: 3, windowSeconds: 600, backoffSeconds: 10, quietSeconds: 3600 };

const daemon = (startedSecondsAgo: number, healed = false): PastHeal => ({
  startedSecondsAgo,
  endedSecondsAgo: startedSecondsAgo - 5,
  automatic: true,
  healed,
});
const person = (startedSecondsAgo: number, healed = true): PastHeal => ({ ...daemon(startedSecondsAgo, healed), automatic: false });

test.each<[string, PastHeal[], ReturnType<typeof judgeBudget>]>([
  ['no heal yet: at once', [], { breaker: 'closed', heals: 0, againInSeconds: 0 }],
  ['after the first: the backoff', [daemon(8)], { breaker: 'closed', heals: 1, againInSeconds: 7 }],
  ['after the second: twice as long', [daemon(50), daemon(10)], { breaker: 'closed', heals: 2, againInSeconds: 15 }],
  ['the backoff is over', [daemon(30)], { breaker: 'closed', heals: 1, againInSeconds: 0 }],
  ['the order of the rows means nothing', [daemon(10), daemon(50)], { breaker: 'closed', heals: 2, againInSeconds: 15 }],
  [
    'under way, or its end unknown: from its start',
    [{ ...daemon(4), endedSecondsAgo: null }],
    { breaker: 'closed', heals: 1, againInSeconds: 6 },
  ],
  ['so many in the window: open', [daemon(300), daemon(200), daemon(105)], { breaker: 'open', heals: 3, againInSeconds: 3500 }],
  ['successes count too', [daemon(300, true), daemon(200, true), daemon(105, true)], { breaker: 'open', heals: 3, againInSeconds: 3500 }],
  ['open past the window', [daemon(1700), daemon(1600), daemon(1505)], { breaker: 'open', heals: 3, againInSeconds: 2100 }],
  [
    'the quiet period closes it, with a full budget',
    [daemon(5000), daemon(4900), daemon(4800)],
    { breaker: 'closed', heals: 0, againInSeconds: 0 },
  ],
  [
    'what came before a quiet period does not count after it',
    [daemon(5000), daemon(4900), daemon(4800), daemon(8)],
    { breaker: 'closed', heals: 1, againInSeconds: 7 },
  ],
  [
    'spread over more than the window: closed',
    [daemon(1400), daemon(700), daemon(105)],
    { breaker: 'closed', heals: 1, againInSeconds: 0 },
  ],
  [
    "a person's heal that succeeds closes it",
    [daemon(300), daemon(200), daemon(105), person(50)],
    { breaker: 'closed', heals: 0, againInSeconds: 0 },
  ],
  [
    "a person's heal that fails does not",
    [daemon(300), daemon(200), daemon(105), person(50, false)],
    { breaker: 'open', heals: 3, againInSeconds: 3500 },
  ],
  [
    "a person's heals cost nothing",
    [person(60, false), person(40, false), person(20, false)],
    { breaker: 'closed', heals: 0, againInSeconds: 0 },
  ],
  [
    'after a person closed it the count begins anew',
    [daemon(300), daemon(200), daemon(105), person(50), daemon(8)],
    { breaker: 'closed', heals: 1, againInSeconds: 7 },
  ],
])('%s', (_, history, budget) => {
  expect(judgeBudget(history, LIMITS)).toEqual(budget);
});

test('the backoff grows no further than the window', () => {
  const limits = { ...LIMITS, maxHeals: 100 };
  const history = Array.from({ length: 20 }, (_, index) => daemon(10 * (index + 1)));
  expect(judgeBudget(history, limits).againInSeconds).toBe(595);
});
