import { expect, test } from 'vitest';
import { type FlowPlan, flowDrift, type ParentBefore } from './flow-plan.ts';
import { hashPlan, type RepairPlan } from './plan.ts';

const PARENT: ParentBefore = {
  retryLimit: 2,
  deadLetter: null,
  blocked: false,
  blocksKeyWhenFailed: false,
  copies: null,
  waiting: ['child/1', 'child/2'],
};
const PLAN: FlowPlan = {
  target: 'parent/1',
  state: 'failed',
  retryCount: 2,
  jobs: ['parent/1'],
  children: [],
  after: 'retry',
  parent: PARENT,
  warnings: [],
};

const hashOf = (flow: FlowPlan): string => {
  const empty: RepairPlan = {
    action: 'workflow_retry_parent',
    targets: [flow.target],
    policy: null,
    executor: null,
    jobs: [],
    unit: null,
    flow,
    left: 0,
    leftQueues: [],
    leftOut: [],
    voidSilences: [],
  };
  return hashPlan(empty);
};

test.each<[Partial<FlowPlan>, string]>([
  [{ state: 'cancelled' }, 'state was failed, is cancelled'],
  [{ retryCount: 3 }, 'attempt was 2, is 3'],
  [{ jobs: ['parent/1', 'child/1'] }, 'the jobs behind it have changed: 0 gone, 1 new'],
  ...(
    [
      [{ retryLimit: 1 }, 'retry limit was 2, is 1'],
      [{ deadLetter: 'dead' }, 'dead letter queue was none, is dead'],
      [{ blocked: true }, 'whether it is blocked was no, is yes'],
      [{ blocksKeyWhenFailed: true }, 'key blocked by a failure was no, is yes'],
      [{ copies: 'dead/2 (created)' }, 'what became of its copy was none, is dead/2 (created)'],
      [{ waiting: ['child/1'] }, 'the jobs behind it have changed: 1 gone, 0 new'],
      [{ waiting: ['child/1', 'child/2', 'child/3'] }, 'the jobs behind it have changed: 0 gone, 1 new'],
      [{ waiting: null }, 'how many wait behind it has changed'],
    ] as const
  ).map(([moved, drift]): [Partial<FlowPlan>, string] => [{ parent: { ...PARENT, ...moved } }, drift]),
])('a plan rests on what is now %j', (moved, drift) => {
  const now = { ...PLAN, ...moved };
  expect(flowDrift(PLAN, now)).toBe(drift);
  // What is a drift at execution is another plan, with another token, at preview.
  expect(hashOf(now)).not.toBe(hashOf(PLAN));
});

test('as long as nothing has changed there is no drift', () => {
  expect(flowDrift(PLAN, PLAN)).toBeUndefined();
  const whole = { ...PLAN, parent: { ...PARENT, waiting: null } };
  expect(flowDrift(whole, whole)).toBeUndefined();
});
