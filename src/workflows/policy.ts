import { matchesPattern } from '../runtime/pattern.ts';

export const FLOW_POLICIES = ['hold', 'cancel-children', 'retry-parent'] as const;
export type FlowPolicy = (typeof FLOW_POLICIES)[number];

/** What becomes of flows that are stuck behind a parent of this queue; `queue` may hold `*`. */
export interface FlowPolicyRule {
  queue: string;
  policy: FlowPolicy;
  /** Retries of one parent without a person. */
  max: number;
}

/** Pure: first match wins; a person decides where no rule does. */
export function flowPolicyOf(rules: readonly FlowPolicyRule[], queue: string): Omit<FlowPolicyRule, 'queue'> {
  return rules.find((rule) => matchesPattern(rule.queue, queue)) ?? { policy: 'hold', max: 0 };
}
