import type { JobCopy } from '../actions/flow-store.ts';
import type { JobRow } from '../actions/job-store.ts';
import { applyPoisonLimit, type Policy, type ResolvedPolicy } from '../actions/limits.ts';
import type { Verdict } from '../executors/verdict.ts';

export const JOB_ACTIONS = ['job_retry', 'job_rescue', 'job_cancel', 'job_discard'] as const;
export type JobAction = (typeof JOB_ACTIONS)[number];

/** Who runs an attempt, as far as it is known. */
export interface Owner {
  executorId: string;
  verdict: Verdict;
  proof: string | null;
  reason: string;
}

/** What a plan rests on: when any of it has changed, the plan is void. */
export interface JobBefore {
  state: string;
  retryCount: number;
  retryLimit: number;
  startedOn: string | null;
  /** It waits for another job. */
  blocked: boolean;
  executor: string | null;
  verdict: Verdict | null;
  proof: string | null;
  /** Of a rescue: what applies to it, and by whose word. */
  policy: Policy | null;
  policySource: ResolvedPolicy['source'] | null;
  /** How often it was given back before. */
  recoveries: number;
  /** Of poison: how often its queue allows that. */
  mostRecoveries: number | null;
  /** Of a rescue: it has come back as often as that. */
  poison: boolean;
  deadLetter: string | null;
  /** Jobs that wait for this one. */
  children: number;
  siblingInRetry: boolean;
  blocksKeyWhenFailed: boolean;
  /** Of an ended job: which other one has the only place that there is for it. */
  placeTakenBy: string | null;
  /** Of a retry: what became of it after it failed, in dead letter queues and redriven from there; null where nothing is known. */
  copies: string | null;
}

export interface JobPlan {
  /** `QUEUE/JOB-ID`. */
  target: string;
  queue: string;
  jobId: string;
  change: 'rescue' | 'retry' | 'resume' | 'cancel';
  before: JobBefore;
  /** The state that it will have. */
  after: string;
  /** Of a rescue. */
  policy: Policy | null;
  /** What a person should know before: pg-boss's own rules, and who waits for it. */
  warnings: string[];
}

/** Less than which a job may well wait for its turn. */
const SHORTLY_SECONDS = 3_600;

export type JobPlanned = { plan: JobPlan } | { refusal: string };

export interface JobFacts {
  queue: string;
  jobId: string;
  row: JobRow | undefined;
  /** Of an active job; null where nobody is known to run it. */
  owner: Owner | null;
  /** Where that is so because of the name under which it was recorded, which is not one executor's alone. */
  sharedName: string | null;
  /** What would apply to it as an orphan; `source` is operator where the request named the policy. */
  resolved: ResolvedPolicy;
  recoveries: number;
  /** A sweep gives it back once its executor has ended, and treats it as poison where it is: no person decides then. */
  isLeftToSweep?: true;
  /** Of a retry. */
  copies?: readonly JobCopy[];
}

/** Pure: what an action would do to one job, or why it cannot. */
export function planJob(action: JobAction, facts: JobFacts): JobPlanned {
  const before = beforeOf(action, facts);
  if (!before) return { refusal: 'there is no such job: it was deleted, or its queue or id is misspelled' };
  switch (action) {
    case 'job_retry':
      return planRetry(facts, before);
    case 'job_cancel':
      return planCancel(facts, before);
    case 'job_rescue':
    case 'job_discard':
      return planRescue(action, facts, before);
  }
}

/** Pure: what a plan for this action would rest on; null where the job is gone. */
export function beforeOf(action: JobAction, { row, owner, resolved, recoveries, copies = [] }: JobFacts): JobBefore | null {
  if (!row) return null;
  const { state, retryCount, retryLimit, startedOn, blocked, deadLetter, children, siblingInRetry, blocksKeyWhenFailed, placeTakenBy } =
    row;
  const limited = action === 'job_rescue' || action === 'job_discard' ? applyPoisonLimit(resolved, recoveries) : undefined;
  return {
    state,
    retryCount,
    retryLimit,
    startedOn,
    blocked,
    executor: owner?.executorId ?? null,
    verdict: owner?.verdict ?? null,
    proof: owner?.proof ?? null,
    policy: limited?.policy ?? null,
    policySource: limited ? resolved.source : null,
    recoveries,
    mostRecoveries: limited?.poison ? resolved.maxRecoveries : null,
    poison: limited?.poison ?? false,
    deadLetter,
    children,
    siblingInRetry,
    blocksKeyWhenFailed,
    placeTakenBy,
    copies: nameCopies(copies),
  };
}

function planRetry(facts: JobFacts, row: JobBefore): JobPlanned {
  if ((row.state === 'cancelled' || row.state === 'failed') && row.placeTakenBy !== null)
    return { refusal: `${row.placeTakenBy} has the only place that its queue leaves for it: try again when that one has moved on` };
  const traps = facts.row ? [...copiesWarning(row, facts.copies ?? []), ...blockedWarning(facts.row), ...retentionWarning(facts.row)] : [];
  if (row.state === 'cancelled') return planOf(facts, row, 'resume', 'created', traps);
  if (row.state === 'failed') return planOf(facts, row, 'retry', 'retry', traps);
  return { refusal: `it is ${row.state}: job_retry is for failed and cancelled jobs; ${insteadOfRetry(row, facts.row?.blocked)}` };
}

function insteadOfRetry({ state }: JobBefore, blocked: boolean | undefined): string {
  if (state === 'active') return 'for one whose executor is gone there is job_rescue';
  if (state === 'completed') return 'sent anew it is done again';
  return blocked ? '`reclaimd workflows` shows what waits in vain' : 'it runs when its turn comes';
}

function planCancel(facts: JobFacts, row: JobBefore): JobPlanned {
  if (hasEnded(row)) return { refusal: `it is ${row.state} already: job_cancel is for jobs that have not ended` };
  const warnings = waitingWarning(row);
  if (row.state === 'active') warnings.push('a handler that is at it is not stopped by this: its result is ignored');
  return planOf(facts, row, 'cancel', 'cancelled', warnings);
}

function planRescue(action: 'job_rescue' | 'job_discard', facts: JobFacts, row: JobBefore): JobPlanned {
  if (row.state !== 'active') {
    const instead = hasEnded(row)
      ? row.state === 'completed'
        ? 'there is nothing to do'
        : 'job_retry runs it again'
      : 'job_cancel ends it';
    return { refusal: `it is ${row.state}: ${action} is for active jobs whose executor is gone; ${instead}` };
  }
  const alive = facts.owner ? whyNotGone(facts.owner) : whyNobody(facts);
  if (alive) return { refusal: alive };
  const policy = row.policy ?? 'hold';
  const unnamed = whyToName(policy, facts, row);
  if (unnamed !== undefined) return { refusal: unnamed };
  const after = afterRescue(policy, row);
  const kept = after === 'retry' && facts.row ? retentionWarning(facts.row) : [];
  return planOf(facts, row, 'rescue', after, [...rescueWarnings(policy, row), ...kept], policy);
}

/** What no rule may decide but a person. */
function whyToName(
  policy: Policy,
  { recoveries, resolved, isLeftToSweep }: JobFacts,
  { poison, policySource }: JobBefore,
): string | undefined {
  const isPoison = poison && policySource !== 'operator' && !isLeftToSweep;
  if (policy !== 'hold' && !isPoison) return undefined;
  return recoveries >= resolved.maxRecoveries
    ? `it is poison, ${howOften(recoveries, resolved.maxRecoveries)}: name what becomes of it with --policy restart, fail or discard`
    : 'its policy is to hold it: name another with --policy restart, fail or discard';
}

const howOften = (recoveries: number, most: number | null) => `given back ${recoveries} times before, of ${most} that its queue allows`;

/** Only proof, or silence past its limit, makes an attempt free to take. */
export function whyNotGone({ executorId, verdict, reason }: Pick<Owner, 'executorId' | 'verdict' | 'reason'>): string | undefined {
  if (verdict === 'dead' || verdict === 'stopped' || verdict === 'missing') return undefined;
  if (verdict === 'hung') return `${executorId} is hung (${reason}): executor_stop_and_rescue makes sure that it has stopped first`;
  return `${executorId} is ${verdict} (${reason}) and may be at work: wait for it, or executor_stop_and_rescue stops it first`;
}

function whyNobody({ sharedName }: JobFacts): string {
  const why =
    sharedName === null
      ? 'nobody was recorded as its executor'
      : `it was recorded under the application_name "${sharedName}", which others carry or have carried, too`;
  return `${why}, so nobody can tell whether it runs: job_cancel ends it, pg-boss expires it in time`;
}

function afterRescue(policy: Policy, { retryCount, retryLimit, siblingInRetry }: JobBefore): string {
  if (policy === 'hold') return 'active';
  if (policy === 'discard' || siblingInRetry) return 'failed';
  return policy === 'restart' || retryCount < retryLimit ? 'retry' : 'failed';
}

function rescueWarnings(policy: Policy, row: JobBefore): string[] {
  const warnings: string[] = [];
  const ends = policy !== 'hold' && afterRescue(policy, row) === 'failed';
  if (row.verdict === 'missing') warnings.push('its executor is silent, not proven dead: if it still works, the job runs twice');
  if (row.siblingInRetry && policy !== 'hold' && policy !== 'discard')
    warnings.push('a sibling waits for its retry and its queue is stately: this one fails for good');
  else if (policy === 'fail' && ends) warnings.push('it has no retries left: it fails for good');
  if (ends) warnings.push(row.deadLetter === null ? 'there is no dead letter queue' : `a copy goes to ${row.deadLetter}`);
  if (ends && row.blocksKeyWhenFailed) warnings.push('its queue is key_strict_fifo: failed, it blocks every other job of its key');
  if (ends) warnings.push(...waitingWarning(row));
  if (row.poison) warnings.push(`it is poison, ${howOften(row.recoveries, row.mostRecoveries)}`);
  else if (row.recoveries > 0) warnings.push(`it was given back ${row.recoveries} times before`);
  return warnings;
}

/** A fact, as a drift tells it. */
export const spell = (value: string | number | boolean | null | undefined) =>
  typeof value === 'boolean' ? (value ? 'yes' : 'no') : (value ?? 'none');

/** What a plan shows of each job's. */
export const MOST_COPIES = 10;

/** What became of them, to be compared; null where there is none. */
export const nameCopies = (copies: readonly JobCopy[]): string | null =>
  copies.length === 0 ? null : copies.map(({ queue, jobId, state }) => `${queue}/${jobId} (${state})`).join(' and ');

/** What became of a job after it failed is not undone when it is tried again. */
export function copiesWarning({ state, deadLetter }: Pick<JobRow, 'state' | 'deadLetter'>, copies: readonly JobCopy[]): string[] {
  const warnings = copies.map(({ queue, jobId, state: its, redriven }) =>
    redriven
      ? `it was redriven as ${queue}/${jobId}, which is ${its}: its work is done twice${mayRunNoMore(its) ? ' if that one is tried again, too' : ''}`
      : `its copy ${queue}/${jobId} is ${its}: redriven or worked on there, its work is done twice`,
  );
  if (state === 'failed' && deadLetter !== null && !copies.some(({ ofLastEnd }) => ofLastEnd))
    warnings.push(`its copy is not in ${deadLetter} any more: it may have been worked on already, and its work is done twice then`);
  return warnings;
}

const mayRunNoMore = (state: string) => state === 'failed' || state === 'cancelled';

/** To be tried again is not enough for it. */
export const blockedWarning = ({ blocked }: JobRow): string[] =>
  blocked
    ? [
        'it stays blocked until what it waits for has completed: where that never will, workflow_unblock or workflow_retry_parent come after this',
      ]
    : [];

/** A job that is late to run may be deleted before it does. */
export function retentionWarning({ keptSeconds }: Pick<JobRow, 'keptSeconds'>): string[] {
  if (keptSeconds === null || keptSeconds > SHORTLY_SECONDS) return [];
  const when = keptSeconds <= 0 ? 'at its next pass' : `in ${Math.ceil(keptSeconds / 60)} min`;
  return [`${RETENTION} ${when}, unless it has begun to run by then: nothing moves that`];
}

const RETENTION = "its queue's retention deletes it";

/** A warning without the time that passes by itself; no other has any. */
export const withoutAge = (warning: string): string => (warning.startsWith(RETENTION) ? warning.replace(/ in \d+ min,/, ',') : warning);

function waitingWarning({ children }: JobBefore): string[] {
  return children === 0 ? [] : [`${children} ${children === 1 ? 'job waits' : 'jobs wait'} for it, and would stay blocked`];
}

const hasEnded = ({ state }: JobBefore) => state === 'completed' || state === 'cancelled' || state === 'failed';

function planOf(
  { queue, jobId }: JobFacts,
  before: JobBefore,
  change: JobPlan['change'],
  after: string,
  warnings: string[],
  policy: Policy | null = null,
): JobPlanned {
  return { plan: { target: `${queue}/${jobId}`, queue, jobId, change, before, after, policy, warnings } };
}
