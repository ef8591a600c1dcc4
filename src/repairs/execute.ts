import type { JobChange, JobEnd } from '../actions/job-repair.ts';
import type { PolicyAnswers } from '../actions/limits.ts';
import type { Nomination } from '../actions/rescue.ts';
import { appendAudit } from '../audit/append.ts';
import { LEAST_REASON, readReason, storable } from '../authorization/reason.ts';
import { awaitCommand } from '../commands/caller.ts';
import { findExecutorHealth, importSigns } from '../executors/health.ts';
import type { Sql } from '../postgres/database.ts';
import { compare, executorDrift } from './compare.ts';
import { type Executed, type RepairEvent, type SentToNode, settleFault } from './doubt.ts';
import type { JobName } from './facts.ts';
import { applyFlow, type FlowAction, type FlowPlan, flowDrift, lockFlow, planFlow } from './flow-plan.ts';
import type { JobPlan } from './job-plan.ts';
import type { RepairExecuted, TargetOutcome } from './outcome.ts';
import { commonTarget, type RepairPlan } from './plan.ts';
import { examineJobs, findDenial, findObserving, isFlowAction, type RepairDependencies, type RepairRefused, refuse } from './preview.ts';
import { consumePreview, endPreview, type PreviewRow, readPreview } from './queries.ts';
import { findUnshown, planHeld } from './stop-plan.ts';
import { isToken, parseJobTarget } from './targets.ts';
import type { UnitPlan } from './unit-plan.ts';
import { sendPlanned, unitDrift } from './unit-repair.ts';

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

export const DRY_RUN = 'RECLAIMD_DRY_RUN is set: nothing is executed; `reclaimd preview` shows what would be';
const UNKNOWN = 'there is no such token: `reclaimd preview ACTION TARGET` makes one';

/**
 * Carries out what a preview showed, once, in one transaction: uses up the token, locks the targets, reads everything
 * anew, compares, changes, audits. What has drifted is left alone, and said.
 */
export async function executeRepair(dependencies: RepairDependencies, request: ExecuteRequest): Promise<RepairExecuted | RepairRefused> {
  const { database, authorize, node, dryRun } = dependencies;
  if (dryRun) return refuse('dry_run', DRY_RUN);
  const reason = readReason(request.reason);
  const preview = isToken(request.token) ? await readPreview(database, request.token) : undefined;
  if (!preview) {
    const tried = { actor: request.actor, action: 'execute', target: 'an unknown token', reason: reason ?? null, node };
    await database.transaction((tx) => appendAudit(tx, { ...tried, outcome: 'denied', detail: { denial: UNKNOWN } }));
    return refuse('unknown', UNKNOWN);
  }
  const event = eventOf(preview, request.actor, reason ?? storable(request.reason), node);
  const deny = async (refused: 'foreign' | 'denied', message: string) => {
    await database.transaction((tx) => appendAudit(tx, { ...event, outcome: 'denied', detail: { ...event.detail, denial: message } }));
    return refuse(refused, message);
  };
  if (preview.actor !== request.actor)
    return deny('foreign', `that preview is ${preview.actor}'s, and you are ${request.actor}: make one of your own`);
  if (reason === undefined) return refuse('reason', `a reason of ${LEAST_REASON} characters or more is needed`);
  const denial = await findDenial(authorize, request.actor, preview.plan);
  if (denial !== null) return deny('denied', denial);
  const observing = await findObserving(dependencies, preview.action);
  if (observing !== undefined) return refuse('observing', observing);
  const { unit } = preview.plan;
  const executed = await foresee(dependencies, preview.plan)
    .then((answers) =>
      database.transaction<Executed>((tx) =>
        unit ? sendToNode(dependencies, tx, preview, unit, event, answers) : execute(dependencies, tx, preview, event, answers),
      ),
    )
    .catch((error: unknown) => settleFault(dependencies, preview, event, error));
  return 'sent' in executed ? followCommand(dependencies, preview, executed, request) : executed;
}

/** Takes over what signs of life there are, and asks the host's policy function, before anything is locked. */
async function foresee(dependencies: RepairDependencies, plan: RepairPlan): Promise<PolicyAnswers> {
  const { database, registry } = dependencies;
  const answers: PolicyAnswers = { said: new Map(), isClosed: false };
  if (plan.executor || plan.jobs.length > 0) await importSigns(database, registry);
  if (plan.executor && plan.unit) await planHeld(dependencies, database, plan.executor.id, plan.policy, answers);
  else if (plan.jobs.length > 0) await examineJobs(dependencies, database, plan, plan.jobs, { lock: false, answers });
  answers.isClosed = true;
  return answers;
}

/** Whoever may read the audit must not find a token in it that is still good: it names the preview by its number. */
function eventOf({ action, plan, number, planHash }: PreviewRow, actor: string, reason: string, node: string): RepairEvent {
  return { actor, action, target: commonTarget(plan), reason, node, detail: { preview: number, planHash } };
}

/** Uses up the token and leaves the command in one transaction; the node carries it out, under its own limits, and its end is audited. */
async function sendToNode(
  dependencies: RepairDependencies,
  tx: Sql,
  { token, plan }: PreviewRow,
  unit: UnitPlan,
  event: RepairEvent,
  answers: PolicyAnswers,
): Promise<SentToNode | RepairRefused> {
  if (!(await consumePreview(tx, token))) return explainUnusable(tx, token, event);
  const moved =
    (await executorDrift(dependencies, tx, plan)) ??
    (await unitDrift(tx, unit)) ??
    (plan.executor ? await findUnshown(dependencies, tx, plan, plan.executor.id, answers) : undefined);
  if (moved === undefined) return { sent: await sendPlanned(tx, plan, event), unit };
  const drifted = [{ target: commonTarget(plan), drift: moved }];
  await endPreview(tx, token, 'drifted');
  await appendAudit(tx, { ...event, outcome: 'drifted', detail: { ...event.detail, drifted } });
  return refuse('drifted', `${moved}: make a new preview`);
}

/** Waits for the node to carry it out; by then it is the command's end that is audited. */
async function followCommand(
  dependencies: RepairDependencies,
  { token, plan, action }: PreviewRow,
  { sent, unit }: SentToNode,
  { onEvent, signal }: Pick<ExecuteRequest, 'onEvent' | 'signal'>,
): Promise<RepairExecuted | RepairRefused> {
  const target = commonTarget(plan);
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
      await endPreview(dependencies.database, token, 'drifted');
      return refuse('drifted', `${why}: make a new preview`);
    case 'refused':
      return refuse('denied', why);
    case 'unknown':
      return tell({ target, outcome: 'unknown', error: why });
    default:
      return tell({ target, outcome: 'failed', error: why });
  }
}

async function execute(
  dependencies: RepairDependencies,
  tx: Sql,
  preview: PreviewRow,
  event: RepairEvent,
  answers: PolicyAnswers,
): Promise<RepairExecuted | RepairRefused> {
  const { token, plan, action } = preview;
  if (!(await consumePreview(tx, token))) return explainUnusable(tx, token, event);
  if (plan.flow && isFlowAction(action)) return executeFlow(dependencies, tx, preview, plan.flow, action, event);
  const { asPlanned, drifted } = await compare(dependencies, tx, plan, answers);
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
  const left = plan.executor ? await countLeft(dependencies, tx, plan.executor.id, plan) : undefined;
  const detail = { ...event.detail, ...(drifted.length > 0 ? { drifted } : {}), ...(left ? { left } : {}) };
  const ends = await dependencies.door.repair(
    tx,
    { ...event, partial: drifted.length > 0 || Boolean(left), detail },
    asPlanned.map((job) => changeOf(job, plan)),
  );
  const targets = [
    ...[...ends].map(([target, end]) => outcomeOf(target, end)),
    ...drifted.map((one): TargetOutcome => ({ ...one, outcome: 'drifted' })),
  ];
  const partial = Boolean(left) || targets.some(({ outcome }) => outcome !== 'done');
  return { done: true, action, partial, ...(left === undefined ? {} : { left }), targets };
}

const outcomeOf = (target: string, end: JobEnd): TargetOutcome =>
  end.error === undefined ? { target, outcome: 'done', state: end.state } : { target, outcome: 'failed', error: end.error };

/** Attempts that the executor holds and that the plan does not name. */
async function countLeft({ jobs }: RepairDependencies, tx: Sql, executorId: string, plan: RepairPlan): Promise<number> {
  const [executor] = await findExecutorHealth(tx, { ids: [executorId] });
  const named = [...plan.jobs, ...plan.leftOut.map(({ target }) => parseJobTarget(target) as JobName)];
  return executor?.applicationName ? (await jobs.tallyActive(tx, [executor.applicationName], named)).count : 0;
}

/** Locked before it is compared, so that what is done is what was shown; the door looks again. */
async function executeFlow(
  dependencies: RepairDependencies,
  tx: Sql,
  { token }: PreviewRow,
  planned: FlowPlan,
  action: FlowAction,
  event: RepairEvent,
): Promise<RepairExecuted | RepairRefused> {
  const { target } = planned;
  const named = parseJobTarget(target) as JobName;
  await lockFlow(dependencies, tx, named, planned);
  const now = await planFlow(dependencies, tx, action, named);
  const drift = 'refusal' in now ? now.refusal : flowDrift(planned, now.plan);
  const order = { actor: event.actor, reason: event.reason, detail: event.detail };
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
async function explainUnusable(tx: Sql, token: string, event: RepairEvent): Promise<RepairRefused> {
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

function changeOf(job: JobPlan, { executor }: RepairPlan): JobChange {
  const { queue, jobId, before, change, policy, after } = job;
  const { retryCount } = before;
  if (change !== 'rescue') return { kind: change, after, job: { queue, jobId, retryCount, active: before.state === 'active' } };
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
    // What was shown stands, and is recorded as poison where it was shown as such.
    resolved: {
      policy: policy ?? 'fail',
      source: 'operator',
      maxRecoveries: before.poison ? before.recoveries : Number.POSITIVE_INFINITY,
      poison: 'hold',
    },
  };
  return { kind: 'rescue', after, nomination };
}
