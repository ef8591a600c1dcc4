import { matchesPattern } from '../runtime/pattern.ts';

export const FLOW_POLICIES = ['hold', 'cancel-children', 'retry-parent'] as const;
export type FlowPolicy = (typeof FLOW_POLICIES)[number];

const MOST_CAREFUL_FIRST: readonly FlowPolicy[] = ['hold', 'retry-parent', 'cancel-children'];

/** What becomes of flows that are stuck behind a parent of this queue; `queue` may hold `*`. */
export interface FlowPolicyRule {
  queue: string;
  policy: FlowPolicy;
  /** Retries of one parent without a person. */
  max: number;
}

/**
 * Pure: first match wins; a person decides where no rule does. Where parents of several queues are to blame together, the
 * most careful of their policies.
 */
export function flowPolicyOf(rules: readonly FlowPolicyRule[], queues: readonly string[]): Omit<FlowPolicyRule, 'queue'> {
  const policies = queues.map((queue) => rules.find((rule) => matchesPattern(rule.queue, queue)) ?? { policy: 'hold' as const, max: 0 });
  return MOST_CAREFUL_FIRST.flatMap((policy) => policies.filter((one) => one.policy === policy))[0] ?? { policy: 'hold', max: 0 };
}
