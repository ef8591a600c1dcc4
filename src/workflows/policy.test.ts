import { expect, test } from 'vitest';
import { type FlowPolicyRule, flowPolicyOf } from './policy.ts';

const RULES: FlowPolicyRule[] = [
  { queue: 'charge', policy: 'hold', max: 1 },
  { queue: 'mail-*', policy: 'cancel-children', max: 1 },
  { queue: 'm*', policy: 'retry-parent', max: 3 },
];

test.each([
  [['mail-a'], 'cancel-children'],
  [['misc'], 'retry-parent'],
  [['unnamed'], 'hold'],
  [['mail-a', 'mail-b'], 'cancel-children'],
  [['mail-a', 'misc'], 'retry-parent'],
  [['mail-a', 'unnamed'], 'hold'],
  [['misc', 'charge', 'mail-a'], 'hold'],
  [[], 'hold'],
])('parents of %j: %s', (queues, policy) => {
  expect(flowPolicyOf(RULES, queues).policy).toBe(policy);
});
