import type { JobChange } from '../actions/job-repair.ts';
import type { Nomination } from '../actions/rescue.ts';
import { type AuditEvent, appendAudit } from '../audit/append.ts';
import { awaitCommand } from '../commands/caller.ts';
import { findExecutorHealth } from '../executors/health.ts';
import type { Sql } from '../postgres/database.ts';
import type { JobName } from './facts.ts';
import { applyFlow, type FlowAction, type FlowPlan, flowDrift, planFlow } from './flow-plan.ts';
import type { JobPlan } from './job-plan.ts';
import { driftOf, isFirmer, type RepairPlan } from './plan.ts';
import {
  findDenial,
  findObserving,
  isFlowAction,
  planJobs,
  type RepairDependencies,
  type RepairRefused,
  refreshLiveness,
  refuse,
} from './preview.ts';
import { consumePreview, endPreview, type PreviewRow, readPreview } from './queries.ts';
import { findUnshown } from './stop-plan.ts';
import { isToken, parseJobTarget } from './targets.ts';
import type { UnitPlan } from './unit-plan.ts';
import { sendPlanned } from './unit-repair.ts';

export interface ExecuteRequest {
  token: string;
  /** Why, in their own words: 8 characters or more. */
  reason: string;
  actor: string;
  /** Told of what a unit's node does meanwhile. */
  onEvent?(event: object): void;
  /** Ends the waiting for a unit's node, which goes on. */
  signal?: AbortSignal;
}

/** `drifted`: it was not any more what the preview showed, and was left alone. */
export type TargetOutcome =
  | { target: string; outcome: 'done'; state: string }
  | { target: string; outcome: 'drifted'; drift: string }
  | { target: string; outcome: 'failed' | 'unknown'; error: string };

export interface RepairExecuted {
  done: true;
  action: string;
  /** Some targets had moved, or it failed there. */
  partial: boolean;
  targets: TargetOutcome[];
}

export const LEAST_REASON = 8;

/**
 * Carries out what a preview showed, once, in one transaction: uses up the token, locks the targets, reads everything
 * anew, compares, changes, audits. What has drifted is left alone, and said.
 */
export async function executeRepair(dependencies: RepairDependencies, request: ExecuteRequest): Promise<RepairExecuted | RepairRefused> {
  const { database, authorize, node } = dependencies;
  const reason = request.reason.trim();
  const preview = isToken(request.token) ? await readPreview(database, request.token) : undefined;
  if (!preview) return refuse('unknown', 'there is no such token: `reclaimd preview ACTION TARGET` makes one');
  const event = eventOf(preview, request.actor, reason, node);
  const deny = async (refused: 'foreign' | 'denied', message: string) => {
    await database.transaction((tx) => appendAudit(tx, { ...event, outcome: 'denied', detail: { ...event.detail, denial: message } }));
    return refuse(refused, message);
  };
  if (preview.actor !== request.actor)
    return deny('foreign', `that preview is ${preview.actor}'s, and you are ${request.actor}: make one of your own`);
  if (reason.length < LEAST_REASON) return refuse('reason', `a reason of ${LEAST_REASON} characters or more is needed`);
  const denial = await findDenial(authorize, request.actor, preview.plan);
  if (denial !== null) return deny('denied', denial);
  const observing = await findObserving(dependencies, preview.action);
  if (observing !== undefined) return refuse('observing', observing);
  try {
    if (preview.plan.unit) return await executeOnNode(dependencies, preview, preview.plan.unit, event, request);
    return await database.transaction((tx) => execute(dependencies, tx, preview, event));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    await database
      .transaction((tx) => appendAudit(tx, { ...event, outcome: 'failed', detail: { ...event.detail, error: message } }))
      .catch(() => undefined);
    throw error;
  }
}

type Event = Omit<AuditEvent, 'outcome' | 'reason'> & { reason: string };

function eventOf({ action, plan, token, planHash }: PreviewRow, actor: string, reason: string, node: string): Event {
  return { actor, action, target: commonTarget(plan), reason, node, detail: { token, planHash } };
}

/** Uses up the token and leaves the command in one transaction; the node carries it out, under its own limits, and its end is audited. */
async function executeOnNode(
  dependencies: RepairDependencies,
  { token, plan, action }: PreviewRow,
  unit: UnitPlan,
  event: Event,
  { onEvent, signal }: Pick<ExecuteRequest, 'onEvent' | 'signal'>,
): Promise<RepairExecuted | RepairRefused> {
  const { database } = dependencies;
  const target = commonTarget(plan);
  const sent = await database.transaction(async (tx) => {
    if (!(await consumePreview(tx, token))) return explainUnusable(tx, token, event);
    const moved =
      (await executorDrift(tx, plan)) ?? (plan.executor ? await findUnshown(dependencies, tx, plan, plan.executor.id) : undefined);
    if (moved === undefined) return sendPlanned(tx, plan, event);
    await endPreview(tx, token, 'drifted');
    await appendAudit(tx, { ...event, outcome: 'drifted', detail: { ...event.detail, drifted: [{ target, drift: moved }] } });
    return refuse('drifted', `${moved}: make a new preview`);
  });
  if (typeof sent !== 'string') return sent;
  const ended = await awaitCommand(dependencies, sent, { onEvent, signal }).catch((cause: unknown) => ({
    outcome: null,
    error: String(cause),
  }));
  const why = ended.error ?? 'nobody can tell';
  const tell = (one: TargetOutcome): RepairExecuted => ({ done: true, action, partial: one.outcome !== 'done', targets: [one] });
  switch (ended.outcome) {
    case null: {
      const goesOn = `it goes on at ${unit.node}: \`reclaimd audit list\` will say what it did`;
      return tell({ target, outcome: 'unknown', error: ended.error === null ? goesOn : `${ended.error}; ${goesOn}` });
    }
    case 'done':
    case 'not_needed':
      return tell({ target, outcome: 'done', state: ended.error ?? unit.after });
    case 'drifted':
      await endPreview(database, token, 'drifted');
      return refuse('drifted', `${why}: make a new preview`);
    case 'refused':
      return refuse('denied', why);
    case 'unknown':
      return tell({ target, outcome: 'unknown', error: why });
    default:
      return tell({ target, outcome: 'failed', error: why });
  }
}

/** By which an incident finds what was done about it. */
function commonTarget({ executor, targets, jobs, unit }: RepairPlan): string {
  if (executor) return executor.id;
  if (unit) return `${unit.node}:${unit.unit}`;
  if (targets.length === 1) return targets[0] as string;
  const queues = new Set(jobs.map(({ queue }) => queue));
  return queues.size === 1 ? ([...queues][0] as string) : 'several queues';
}

async function execute(
  dependencies: RepairDependencies,
  tx: Sql,
  preview: PreviewRow,
  event: Event,
): Promise<RepairExecuted | RepairRefused> {
  const { token, plan, action } = preview;
  if (!(await consumePreview(tx, token))) return explainUnusable(tx, token, event);
  if (plan.flow && isFlowAction(action)) return executeFlow(dependencies, tx, preview, plan.flow, action, event);
  const { asPlanned, drifted } = await compare(dependencies, tx, plan);
  if (asPlanned.length === 0) {
    await endPreview(tx, token, 'drifted');
    await appendAudit(tx, { ...event, outcome: 'drifted', detail: { ...event.detail, drifted } });
    const what = drifted.length === 1 ? (drifted[0]?.drift ?? '') : 'nothing is what the preview showed any more';
    return refuse(
      'drifted',
      `${what}: make a new preview`,
      drifted.map(({ target, drift }) => ({ target, why: drift })),
    );
  }
  const partial = drifted.length > 0;
  const states = await dependencies.door.repair(
    tx,
    { ...event, partial, detail: { ...event.detail, ...(partial ? { drifted } : {}) } },
    asPlanned.map((job) => changeOf(job, plan)),
  );
  const done = asPlanned.map(({ target }): TargetOutcome => ({ target, outcome: 'done', state: states.get(target) ?? 'gone' }));
  return { done: true, action, partial, targets: [...done, ...drifted.map((one): TargetOutcome => ({ ...one, outcome: 'drifted' }))] };
}

/** The door locks what it changes and looks again; what was shown is compared before. */
async function executeFlow(
  dependencies: RepairDependencies,
  tx: Sql,
  { token, planHash }: PreviewRow,
  planned: FlowPlan,
  action: FlowAction,
  event: Event,
): Promise<RepairExecuted | RepairRefused> {
  const { target } = planned;
  const named = parseJobTarget(target) as JobName;
  const now = await planFlow(dependencies, tx, action, named);
  const drift = 'refusal' in now ? now.refusal : flowDrift(planned, now.plan);
  const order = { actor: event.actor, reason: event.reason, detail: { token, planHash } };
  const change =
    drift === undefined ? await applyFlow(dependencies, tx, action, named, planned, order) : { done: false as const, moved: drift };
  if (change.done)
    return {
      done: true,
      action,
      partial: false,
      targets: change.jobs.map((job) => ({ target: job, outcome: 'done', state: planned.after })),
    };
  await endPreview(tx, token, 'drifted');
  await appendAudit(tx, { ...event, outcome: 'drifted', detail: { ...event.detail, drifted: [{ target, drift: change.moved }] } });
  return refuse('drifted', `${change.moved}: make a new preview`);
}

/** Read again under the lock: somebody may have used it a moment ago. */
async function explainUnusable(tx: Sql, token: string, event: Event): Promise<RepairRefused> {
  const now = await readPreview(tx, token);
  const deny = async (refused: 'used' | 'drifted', message: string) => {
    await appendAudit(tx, { ...event, outcome: 'denied', detail: { ...event.detail, denial: message } });
    return refuse(refused, message);
  };
  if (now?.status === 'consumed') return deny('used', 'that token has been used: `reclaimd audit list` says what it did');
  if (now?.status === 'drifted') return deny('drifted', 'that preview has drifted: make a new one');
  if (now?.overdue) await endPreview(tx, token, 'expired');
  await appendAudit(tx, { ...event, outcome: 'expired' });
  return refuse('expired', 'that preview has expired after 15 minutes: make a new one');
}

interface Compared {
  asPlanned: JobPlan[];
  drifted: { target: string; drift: string }[];
}

/** Locks the jobs, looks at everything anew, and says what still is as it was shown. */
async function compare(dependencies: RepairDependencies, tx: Sql, plan: RepairPlan): Promise<Compared> {
  if (plan.jobs.some(({ before }) => before.verdict === 'missing')) await refreshLiveness(dependencies, tx);
  const moved = await executorDrift(tx, plan);
  if (moved !== undefined) return { asPlanned: [], drifted: [{ target: plan.executor?.id ?? '', drift: moved }] };
  const now = await planJobs(dependencies, tx, plan, plan.jobs, true);
  const fresh = new Map(now.jobs.map((job) => [job.target, job]));
  const refused = new Map(now.leftOut.map(({ target, why }) => [target, why]));
  const compared: Compared = { asPlanned: [], drifted: [] };
  for (const planned of plan.jobs) {
    const { target } = planned;
    const job = fresh.get(target);
    const drift = job ? driftOf(planned, job) : [refused.get(target) ?? 'it is gone'];
    if (job && drift.length === 0) compared.asPlanned.push(job);
    else compared.drifted.push({ target, drift: drift.join('; ') });
  }
  return compared;
}

/** In what way the executor is not any more what the preview showed. */
async function executorDrift(tx: Sql, { executor }: RepairPlan): Promise<string | undefined> {
  if (!executor) return undefined;
  const [now] = await findExecutorHealth(tx, { ids: [executor.id] });
  if (!now) return `executor ${executor.id} is not known any more`;
  if (now.verdict === executor.verdict || isFirmer(executor.verdict, now.verdict)) return undefined;
  return `executor ${executor.id} was ${executor.verdict}, is ${now.verdict} (${now.reason})`;
}

function changeOf(job: JobPlan, { executor }: RepairPlan): JobChange {
  const { queue, jobId, before, change, policy } = job;
  const { retryCount } = before;
  if (change !== 'rescue') return { kind: change, job: { queue, jobId, retryCount, active: before.state === 'active' } };
  const nomination: Nomination = {
    queue,
    jobId,
    retryCount,
    startedOn: before.startedOn ?? '',
    executorId: before.executor,
    verdict: before.verdict ?? 'unknown',
    proof: before.proof,
    reason: executor?.reason ?? `its executor is ${before.verdict}`,
    lastAliveAt: null,
    resolved: { policy: policy ?? 'fail', source: 'operator', maxRecoveries: Number.POSITIVE_INFINITY, poison: 'hold' },
  };
  return { kind: 'rescue', nomination };
}
