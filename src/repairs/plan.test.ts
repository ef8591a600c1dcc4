import { expect, test } from 'vitest';
import { type JobBefore, type JobPlan, retentionWarning } from './job-plan.ts';
import { driftOf, hashPlan, type RepairPlan } from './plan.ts';
import type { UnitPlan } from './unit-plan.ts';

const BEFORE: JobBefore = {
  state: 'active',
  retryCount: 1,
  retryLimit: 2,
  startedOn: 'then',
  blocked: false,
  executor: 'w1',
  verdict: 'missing',
  proof: null,
  policy: 'fail',
  policySource: 'table',
  recoveries: 0,
  mostRecoveries: null,
  poison: false,
  deadLetter: null,
  children: 0,
  siblingInRetry: false,
  blocksKeyWhenFailed: false,
  placeTakenBy: null,
  copies: null,
};

const planOf = (change: JobPlan['change'], before: JobBefore): RepairPlan => ({
  action: 'job_rescue',
  targets: ['mail/1'],
  policy: null,
  executor: null,
  jobs: [{ target: 'mail/1', queue: 'mail', jobId: '1', change, before, after: 'retry', policy: 'fail', warnings: [] }],
  unit: null,
  flow: null,
  left: 0,
  leftQueues: [],
  leftOut: [],
  voidSilences: [],
});

const EVERY = ['rescue', 'retry', 'resume', 'cancel'] as const;

test.each<[readonly JobPlan['change'][], Partial<JobBefore>, string]>([
  [EVERY, { state: 'retry', executor: null, verdict: null }, 'state was active, is retry'],
  [EVERY, { retryCount: 2, startedOn: 'later' }, 'attempt was 1, is 2'],
  [EVERY, { retryLimit: 1 }, 'retry limit was 2, is 1'],
  [EVERY, { startedOn: null }, 'start was then, is none'],
  [EVERY, { executor: 'w2', verdict: 'alive' }, 'executor was w1, is w2'],
  [EVERY, { executor: null, verdict: null }, 'executor was w1, is none'],
  [EVERY, { verdict: 'alive' }, 'its executor was missing, is alive'],
  [EVERY, { verdict: 'hung' }, 'its executor was missing, is hung'],
  [['rescue'], { policy: 'restart' }, 'policy was fail, is restart'],
  [['rescue'], { policy: 'hold' }, 'policy was fail, is hold'],
  [['rescue'], { policySource: 'configured' }, 'source of the policy was table, is configured'],
  [['rescue'], { recoveries: 1 }, 'times that it was given back was 0, is 1'],
  [['rescue'], { poison: true, mostRecoveries: 3 }, 'whether it is poison was no, is yes'],
  [['rescue'], { mostRecoveries: 3 }, 'times that its queue allows was none, is 3'],
  [['retry', 'resume'], { blocked: true }, 'whether it is blocked was no, is yes'],
  [['rescue', 'retry'], { deadLetter: 'dead' }, 'dead letter queue was none, is dead'],
  [['rescue', 'cancel'], { children: 2 }, 'jobs that wait for it was 0, is 2'],
  [['rescue'], { siblingInRetry: true }, 'sibling in retry was no, is yes'],
  [['rescue'], { blocksKeyWhenFailed: true }, 'key blocked by a failure was no, is yes'],
  [['retry', 'resume'], { placeTakenBy: 'mail/2' }, 'who has its place was none, is mail/2'],
  [['retry', 'resume'], { copies: 'dead/2 (created)' }, 'what became of its copy was none, is dead/2 (created)'],
])('%j rests on what is now %j: %s', (changes, moved, drift) => {
  const now = { ...BEFORE, ...moved };
  for (const change of EVERY) {
    const rests = changes.includes(change);
    expect(driftOf({ change, before: BEFORE }, now)).toEqual(rests ? [drift] : []);
    // What is a drift at execution is another plan, with another token, at preview.
    expect(hashPlan(planOf(change, BEFORE)) !== hashPlan(planOf(change, now))).toBe(rests);
  }
});

test('several drifts are all named; what is gone is gone', () => {
  const now = { ...BEFORE, state: 'completed', executor: null, verdict: null, deadLetter: 'dead' };
  expect(driftOf({ change: 'rescue', before: BEFORE }, now)).toEqual([
    'state was active, is completed',
    'dead letter queue was none, is dead',
  ]);
  expect(driftOf({ change: 'rescue', before: BEFORE }, null)).toEqual(['state was active, is gone']);
});

test.each([
  ['missing', 'dead'],
  ['missing', 'stopped'],
  ['alive', 'late'],
  ['late', 'alive'],
] as const)('an executor that was %s and is %s is no drift', (was, verdict) => {
  expect(driftOf({ change: 'rescue', before: { ...BEFORE, verdict: was } }, { ...BEFORE, verdict })).toEqual([]);
});

test.each(['missing', 'alive', 'late', 'unknown'] as const)('proof that has become %s is one', (verdict) => {
  expect(driftOf({ change: 'rescue', before: { ...BEFORE, verdict: 'dead' } }, { ...BEFORE, verdict })).toEqual([
    `its executor was dead, is ${verdict}`,
  ]);
});

test('what is shown beside the changes makes the plan, too; that time passes does not', () => {
  const plan = planOf('retry', BEFORE);
  const warned = (...warnings: string[]) => ({ ...plan, jobs: plan.jobs.map((job) => ({ ...job, warnings })) });
  const others: RepairPlan[] = [
    { ...plan, leftOut: [{ target: 'mail/2', why: 'it is completed already' }] },
    { ...plan, leftOut: [{ target: 'mail/2', why: 'there is no such job' }] },
    { ...plan, left: 1 },
    { ...plan, left: 1, leftQueues: ['mail'] },
    warned('2 jobs wait for it'),
    warned('3 jobs wait for it'),
    warned(...retentionWarning({ keptSeconds: 720 })),
    warned(...retentionWarning({ keptSeconds: -1 })),
  ];
  expect(new Set([plan, ...others].map(hashPlan)).size).toBe(others.length + 1);
  expect(hashPlan(warned(...retentionWarning({ keptSeconds: 660 })))).toBe(hashPlan(warned(...retentionWarning({ keptSeconds: 720 }))));
});

test('a name that reads like an age is a name', () => {
  const seen = { unit: 'app.service', activeState: 'failed', subState: 'failed', result: 'success', invocation: 'i' };
  const tokens = ['rack 1 d', 'rack 2 d'].flatMap((name) => {
    const unit: UnitPlan = {
      node: name,
      unit: 'app.service',
      command: 'unit_heal',
      before: seen,
      executors: [],
      after: 'active',
      warnings: [],
    };
    const empty = { ...planOf('retry', BEFORE), jobs: [] };
    return [
      hashPlan({ ...empty, action: 'unit_heal', targets: [`${name}:app`], unit }),
      hashPlan({ ...empty, executor: { id: name, verdict: 'dead', reason: 'its process is gone' } }),
      hashPlan({ ...empty, leftOut: [{ target: 'mail/1', why: `it is ${name}'s` }] }),
    ];
  });
  expect(new Set(tokens).size).toBe(tokens.length);
});
