import { expect, test } from 'vitest';
import type { JobRow } from '../actions/job-store.ts';
import type { Policy, ResolvedPolicy } from '../actions/limits.ts';
import { type JobAction, type JobFacts, planJob, retentionWarning } from './job-plan.ts';

const ROW: JobRow = {
  queue: 'mail',
  jobId: '1',
  state: 'active',
  retryCount: 0,
  retryLimit: 2,
  startedOn: 'then',
  blocked: false,
  children: 0,
  deadLetter: null,
  keptSeconds: 86_400,
  siblingInRetry: false,
  blocksKeyWhenFailed: false,
  placeTakenBy: null,
  applicationName: 'w',
};
const policyOf = (policy: Policy, source: ResolvedPolicy['source'] = 'table'): ResolvedPolicy => ({
  policy,
  source,
  maxRecoveries: 3,
  poison: 'hold',
});
const ownerIs = (verdict: 'alive' | 'late' | 'hung' | 'missing' | 'dead' | 'stopped' | 'unknown') => ({
  executorId: 'w',
  verdict,
  proof: null,
  reason: 'so it seems',
});

function plan(action: JobAction, row: Partial<JobRow> | null, facts: Partial<JobFacts> = {}) {
  const full = row === null ? undefined : { ...ROW, ...row };
  return planJob(action, {
    queue: 'mail',
    jobId: '1',
    row: full,
    owner: ownerIs('dead'),
    sharedName: null,
    resolved: policyOf('fail'),
    recoveries: 0,
    ...facts,
  });
}

test.each<[JobAction, Partial<JobRow>, Policy, string]>([
  ['job_retry', { state: 'failed' }, 'fail', 'retry'],
  ['job_retry', { state: 'cancelled' }, 'fail', 'created'],
  ['job_cancel', { state: 'created' }, 'fail', 'cancelled'],
  ['job_cancel', { state: 'retry' }, 'fail', 'cancelled'],
  ['job_cancel', {}, 'fail', 'cancelled'],
  ['job_rescue', {}, 'fail', 'retry'],
  ['job_rescue', { retryCount: 2 }, 'fail', 'failed'],
  ['job_rescue', { retryCount: 2 }, 'restart', 'retry'],
  ['job_rescue', { siblingInRetry: true }, 'fail', 'failed'],
  ['job_rescue', {}, 'discard', 'failed'],
  ['job_discard', {}, 'discard', 'failed'],
])('%s of %j by %s leaves it %s', (action, row, policy, after) => {
  expect(plan(action, row, { resolved: policyOf(policy) })).toMatchObject({ plan: { target: 'mail/1', after } });
});

test.each<[JobAction, Partial<JobRow> | null, string]>([
  ['job_retry', null, 'there is no such job'],
  ['job_retry', { state: 'active' }, 'there is job_rescue'],
  ['job_retry', { state: 'completed' }, 'it is completed: job_retry is for failed and cancelled jobs; sent anew'],
  ['job_retry', { state: 'retry' }, 'when its turn comes'],
  ['job_retry', { state: 'created', blocked: true }, 'reclaimd workflows'],
  ['job_retry', { state: 'failed', placeTakenBy: 'mail/2' }, 'mail/2 has the only place'],
  ['job_retry', { state: 'cancelled', placeTakenBy: 'mail/2' }, 'mail/2 has the only place'],
  ['job_cancel', { state: 'failed' }, 'it is failed already'],
  ['job_rescue', { state: 'failed' }, 'job_retry runs it again'],
  ['job_rescue', { state: 'retry' }, 'job_cancel ends it'],
  ['job_discard', { state: 'completed' }, 'it is completed'],
])('%s of %j is refused: %s', (action, row, why) => {
  expect(plan(action, row)).toEqual({ refusal: expect.stringContaining(why) });
});

test.each([
  ['alive', 'executor_stop_and_rescue stops it first'],
  ['late', 'executor_stop_and_rescue stops it first'],
  ['unknown', 'executor_stop_and_rescue stops it first'],
  ['hung', 'executor_stop_and_rescue makes sure'],
] as const)('an attempt of an executor that is %s is not taken', (verdict, why) => {
  for (const action of ['job_rescue', 'job_discard'] as const)
    expect(plan(action, {}, { owner: ownerIs(verdict) })).toEqual({ refusal: expect.stringContaining(why) });
});

test('nor is one of which nobody knows who runs it', () => {
  expect(plan('job_rescue', {}, { owner: null })).toEqual({ refusal: expect.stringContaining('nobody was recorded') });
  expect(plan('job_rescue', {}, { owner: null, sharedName: 'billing' })).toEqual({
    refusal: expect.stringMatching(/^it was recorded under the application_name "billing", .* job_cancel/),
  });
});

test('what is held, by policy or as poison, wants a policy by name', () => {
  expect(plan('job_rescue', {}, { resolved: policyOf('hold') })).toEqual({ refusal: expect.stringContaining('--policy') });
  for (const poison of ['hold', 'discard'] as const) {
    const refusal =
      'it is poison, given back 3 times before, of 3 that its queue allows: name what becomes of it with --policy restart, fail or discard';
    expect(plan('job_rescue', {}, { resolved: { ...policyOf('fail'), poison }, recoveries: 3 })).toEqual({ refusal });
  }
});

test.each(['restart', 'fail', 'discard'] as const)('poison that a person names %s for is shown as such', (policy) => {
  const planned = plan('job_rescue', {}, { resolved: policyOf(policy, 'operator'), recoveries: 3 });
  expect(planned).toMatchObject({ plan: { policy, before: { poison: true } } });
  expect('plan' in planned && planned.plan.warnings.join('\n')).toContain('it is poison, given back 3 times before, of 3');
});

test('poison that a sweep will give back is shown as it ends there', () => {
  const resolved: ResolvedPolicy = { ...policyOf('fail'), poison: 'discard' };
  const planned = plan('job_rescue', {}, { resolved, recoveries: 3, isLeftToSweep: true });
  expect(planned).toMatchObject({ plan: { policy: 'discard', after: 'failed', before: { policySource: 'table', poison: true } } });
});

test.each<[Partial<JobRow>, Partial<JobFacts>, string]>([
  [{ siblingInRetry: true }, {}, 'stately'],
  [{ retryCount: 2 }, {}, 'no retries left'],
  [{ retryCount: 2, deadLetter: 'dead' }, {}, 'a copy goes to dead'],
  [{ retryCount: 2 }, {}, 'no dead letter queue'],
  [{ retryCount: 2, blocksKeyWhenFailed: true }, {}, 'key_strict_fifo'],
  [{ retryCount: 2, children: 2 }, {}, '2 jobs wait for it'],
  [{}, { owner: ownerIs('missing') }, 'the job runs twice'],
  [{}, { recoveries: 1 }, 'given back 1 times before'],
])('a rescue of %j warns: %#', (row, facts, warning) => {
  const planned = plan('job_rescue', row, facts);
  expect('plan' in planned && planned.plan.warnings.join('\n')).toContain(warning);
});

test('a job that just runs again needs no warning', () => {
  expect(plan('job_rescue', {})).toMatchObject({ plan: { warnings: [] } });
});

test.each(['failed', 'cancelled'])('a %s job that is tried again warns of what keeps it from running', (state) => {
  const warningsOf = (row: Partial<JobRow>) => {
    const planned = plan('job_retry', { state, ...row });
    return 'plan' in planned && planned.plan.warnings;
  };
  expect(warningsOf({})).toEqual([]);
  expect(warningsOf({ blocked: true })).toEqual([expect.stringContaining('it stays blocked')]);
  expect(warningsOf({ blocked: true, keptSeconds: 0 })).toHaveLength(2);
});

const copy = (state: string, redriven: boolean) => ({
  of: 'mail/1',
  queue: redriven ? 'mail' : 'dead',
  jobId: '2',
  state,
  redriven,
  ofLastEnd: true,
});

test.each([
  [[], 'its copy is not in dead any more: it may have been worked on already, and its work is done twice then'],
  [[copy('created', false)], 'its copy dead/2 is created: redriven or worked on there, its work is done twice'],
  [[copy('completed', true)], 'it was redriven as mail/2, which is completed: its work is done twice'],
  [[copy('failed', true)], 'it was redriven as mail/2, which is failed: its work is done twice if that one is tried again, too'],
])('a failed job of a queue with a dead letter queue tells what became of its copy: %j', (copies, warning) => {
  expect(plan('job_retry', { state: 'failed', deadLetter: 'dead' }, { copies })).toMatchObject({ plan: { warnings: [warning] } });
});

test('nor is the copy of an earlier failure that of the last', () => {
  const copies = [{ ...copy('completed', true), ofLastEnd: false }];
  const planned = plan('job_retry', { state: 'failed', deadLetter: 'dead' }, { copies });
  expect('plan' in planned && planned.plan.warnings).toHaveLength(2);
});

test.each<[number | null, string | undefined]>([
  [null, undefined],
  [3_601, undefined],
  [3_600, 'deletes it in 60 min'],
  [30, 'deletes it in 1 min'],
  [0, 'deletes it at its next pass'],
  [-86_400, 'deletes it at its next pass'],
])('a job that is kept for %s s, and has to run again, warns: %s', (keptSeconds, warning) => {
  const expected = warning === undefined ? [] : [expect.stringContaining(warning)];
  expect(retentionWarning({ keptSeconds })).toEqual(expected);
  expect(plan('job_retry', { state: 'failed', keptSeconds })).toMatchObject({ plan: { warnings: expected } });
  expect(plan('job_rescue', { keptSeconds })).toMatchObject({ plan: { after: 'retry', warnings: expected } });
});

test('retention takes no job that ends with this', () => {
  for (const [action, row] of [
    ['job_cancel', { state: 'created' }],
    ['job_rescue', { retryCount: 2, deadLetter: 'dead' }],
  ] as const) {
    const planned = plan(action, { ...row, keptSeconds: 0 });
    expect('plan' in planned && planned.plan.warnings.join()).not.toContain('retention');
  }
});
