import type { RepairDoor } from '../actions/job-repair.ts';
import { POLICIES, type Policy, type PolicyAnswers } from '../actions/limits.ts';
import { appendAudit } from '../audit/append.ts';
import type { Action, Resource } from '../authorization/action.ts';
import type { Authorize } from '../authorization/authorize.ts';
import { type ExecutorHealth, findExecutorHealth, importSigns } from '../executors/health.ts';
import type { Database, Sql } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import { eachOnce, type FactsDependencies, type JobName, type ResolveOrphan, readFacts } from './facts.ts';
import { FLOW_ACTIONS, type FlowAction, type FlowRepairDependencies, planFlow } from './flow-plan.ts';
import {
  beforeOf,
  JOB_ACTIONS,
  type JobAction,
  type JobBefore,
  type JobFacts,
  type JobPlanned,
  MOST_COPIES,
  planJob,
  whyNotGone,
} from './job-plan.ts';
import { commonTarget, hashPlan, type RepairPlan, type RepairRequest } from './plan.ts';
import { savePreview } from './queries.ts';
import { explainVoid, findVoidSilences, type SilenceDependencies } from './silence.ts';
import { planHeld } from './stop-plan.ts';
import { parseJobTarget, respellJobTarget } from './targets.ts';
import { UNIT_ACTIONS, type UnitAction } from './unit-plan.ts';
import { planStopOf, planUnitRepair } from './unit-repair.ts';

export interface RepairDependencies extends Omit<FactsDependencies, 'resolve'>, FlowRepairDependencies, SilenceDependencies {
  database: Database;
  clock: Clock;
  door: RepairDoor;
  authorize: Authorize;
  /**
   * Each job's policy by the rules as they are now.
   * @param answers what the host's function has said already: it is asked for as long as it likes, and not while jobs are locked.
   */
  policies(sql: Sql, answers?: PolicyAnswers): Promise<ResolveOrphan>;
  /** The node on which it is asked. */
  node: string;
  /** RECLAIMD_DRY_RUN: plans are shown, and none is carried out. */
  dryRun: boolean;
  /** Why no job may be changed now: pg-boss is not there, or in a version that we may not act on. */
  whyObserving(): Promise<string | undefined>;
}

/** Why a repair is not previewed or not executed: values, for being refused is no fault. */
export interface RepairRefused {
  done: false;
  refused:
    | 'unsupported'
    | 'target'
    | 'impossible'
    | 'reason'
    | 'denied'
    | 'unknown'
    | 'foreign'
    | 'used'
    | 'expired'
    | 'drifted'
    | 'busy'
    | 'observing'
    | 'dry_run';
  /** One sentence, with what to do next. */
  message: string;
  /** Where several targets were asked for: each one's reason. */
  targets?: { target: string; why: string }[];
}

export interface RepairPreview {
  done: true;
  /** What `executeRepair` wants; null where the actor may look only. */
  token: string | null;
  /** By which the audit names this preview; null with the token. */
  number: number | null;
  expiresInSeconds: number;
  plan: RepairPlan;
  /** What speaks against it for the moment, and may be over by the time that it is executed; what comes new until then is a drift. */
  cautions: string[];
  /** Why the actor may not execute it. */
  denial: string | null;
}

export const REPAIR_ACTIONS = [
  ...JOB_ACTIONS,
  'executor_rescue',
  'executor_stop_and_rescue',
  ...UNIT_ACTIONS,
  ...FLOW_ACTIONS,
] as const satisfies readonly Action[];
export type RepairAction = (typeof REPAIR_ACTIONS)[number];

export interface PreviewRequest {
  action: string;
  /** `QUEUE/JOB-ID`s, one executor's id, or one `UNIT` or `NODE:UNIT`. */
  targets: readonly string[];
  /** Of a rescue: instead of each job's own. */
  policy?: string | undefined;
  actor: string;
}

/** One plan, one transaction, one look for a person: more are repaired in several. */
export const MOST_TARGETS = 1_000;

/**
 * Says what a repair would do, target by target, and keeps that plan for 15 minutes under a token that only its actor can
 * use. Changes nothing else, but takes over what signs of life there are by now. The same plan gives the same token while
 * that is ready. That an actor may not is audited.
 */
export async function previewRepair(dependencies: RepairDependencies, asked: PreviewRequest): Promise<RepairPreview | RepairRefused> {
  const { database, authorize, node } = dependencies;
  const request = readRequest(asked);
  if ('refused' in request) return request;
  const observing = await findObserving(dependencies, request.action);
  if (observing !== undefined) return refuse('observing', observing);
  const found = await planRepair(dependencies, request, asked.actor);
  if ('refused' in found) return found;
  const planned = { ...found, voidSilences: await findVoidSilences(dependencies, database, found.jobs) };
  const denial = await findDenial(authorize, asked.actor, planned);
  const cautions = explainVoid(planned.voidSilences);
  if (denial !== null) {
    const { actor } = asked;
    const event = { actor, action: request.action, target: commonTarget(planned), reason: null, node };
    await database.transaction((tx) => appendAudit(tx, { ...event, outcome: 'denied', detail: { denial } }));
    return { done: true, token: null, number: null, expiresInSeconds: 0, plan: planned, cautions, denial };
  }
  const saved = await database.transaction((tx) =>
    savePreview(tx, { actor: asked.actor, node, request, plan: planned, planHash: hashPlan(planned) }),
  );
  const { token, number, expiresInSeconds } = saved;
  return { done: true, token, number, expiresInSeconds, plan: planned, cautions, denial: null };
}

export const refuse = (refused: RepairRefused['refused'], message: string, targets?: RepairRefused['targets']): RepairRefused => ({
  done: false,
  refused,
  message,
  ...(targets ? { targets } : {}),
});

function readRequest({ action, targets: given, policy: named }: PreviewRequest): RepairRequest | RepairRefused {
  const policy = named ?? null;
  if (!isRepairAction(action)) return refuse('unsupported', `there is no repair ${action}: ${REPAIR_ACTIONS.join(', ')}`);
  const isOfJobs = isJobAction(action) || isFlowAction(action);
  const targets = [...new Set(isOfJobs ? given.map(respellJobTarget) : given)];
  if (targets.length === 0) return refuse('target', `${action} needs a target: QUEUE/JOB-ID, an executor's id, UNIT or NODE:UNIT`);
  if (targets.length > MOST_TARGETS)
    return refuse('target', `${targets.length} targets are too many for one repair: ${MOST_TARGETS} at most`);
  if (!isJobAction(action) && targets.length > 1) return refuse('target', `${action} takes one target at a time`);
  if (isOfJobs) {
    const wrong = targets.find((target) => !parseJobTarget(target));
    if (wrong !== undefined) return refuse('target', `${action} is for jobs: ${wrong} is no QUEUE/JOB-ID`);
  }
  if (policy !== null && action !== 'job_rescue' && action !== 'executor_rescue' && action !== 'executor_stop_and_rescue')
    return refuse('target', `${action} takes no policy: job_rescue, executor_rescue and executor_stop_and_rescue do`);
  if (policy !== null && !isGivingBack(policy)) return refuse('target', `${policy} is no policy of a rescue: restart, fail or discard`);
  return { action, targets, policy };
}

const isJobAction = (action: string): action is JobAction => (JOB_ACTIONS as readonly string[]).includes(action);
export const isFlowAction = (action: string): action is FlowAction => (FLOW_ACTIONS as readonly string[]).includes(action);
const isUnitAction = (action: string): action is UnitAction => (UNIT_ACTIONS as readonly string[]).includes(action);
const isRepairAction = (action: string): action is RepairAction => (REPAIR_ACTIONS as readonly string[]).includes(action);
/** Repairs of units alone need no pg-boss. */
export const findObserving = async ({ whyObserving }: Pick<RepairDependencies, 'whyObserving'>, action: string) =>
  isUnitAction(action) ? undefined : whyObserving();
const isGivingBack = (policy: string): policy is Policy => policy !== 'hold' && (POLICIES as readonly string[]).includes(policy);

/** The plan as of now, from a fresh look at everything that it rests on; locks nothing. */
async function planRepair(dependencies: RepairDependencies, request: RepairRequest, actor: string): Promise<RepairPlan | RepairRefused> {
  const { database } = dependencies;
  const { action } = request;
  const empty: RepairPlan = {
    ...request,
    executor: null,
    jobs: [],
    unit: null,
    flow: null,
    left: 0,
    leftQueues: [],
    leftOut: [],
    voidSilences: [],
  };
  if (isFlowAction(action)) {
    const planned = await planFlow(dependencies, database, action, parseJobTarget(request.targets[0] as string) as JobName);
    return 'refusal' in planned ? refuse('impossible', planned.refusal) : { ...empty, flow: planned.plan };
  }
  if (isUnitAction(action)) {
    const planned = await planUnitRepair(dependencies, action, request.targets[0] as string, actor);
    return 'refusal' in planned ? refuse('impossible', planned.refusal) : { ...empty, unit: planned.plan };
  }
  await importSigns(database, dependencies.registry);
  if (isJobAction(action)) {
    const named = request.targets.map((target) => parseJobTarget(target) as JobName);
    return planJobs(dependencies, database, empty, named);
  }
  const id = request.targets[0] as string;
  const [executor] = await findExecutorHealth(database, { ids: [id] });
  if (!executor) return refuse('target', `there is no executor ${id}: see \`reclaimd executors --all\``);
  const { verdict, reason } = executor;
  const frame: RepairPlan = { ...empty, executor: { id, verdict, reason } };
  if (action === 'executor_stop_and_rescue') {
    const planned = await planStopOf(dependencies, executor, actor);
    if ('refusal' in planned) return refuse('impossible', planned.refusal);
    const held = await planHeld(dependencies, database, id, request.policy);
    return 'refusal' in held ? refuse('impossible', held.refusal) : { ...frame, unit: planned.plan, ...held };
  }
  return planRescueOf(dependencies, database, frame, executor);
}

/** The first of the executor's attempts, and how many there are beyond. */
async function planRescueOf(
  dependencies: RepairDependencies,
  sql: Sql,
  frame: RepairPlan,
  executor: ExecutorHealth,
): Promise<RepairPlan | RepairRefused> {
  const { jobs } = dependencies;
  const { id, verdict, reason, applicationName } = executor;
  const alive = whyNotGone({ executorId: id, verdict, reason });
  if (alive) return refuse('impossible', alive);
  const names = applicationName === null ? [] : [applicationName];
  const attempts = await jobs.listActive(sql, names, MOST_TARGETS);
  if (attempts.length === 0) return refuse('impossible', `${id} holds no attempt any more: there is nothing to give back`);
  const named = eachOnce(attempts);
  const { count: left, queues: leftQueues } = await jobs.tallyActive(sql, names, named);
  return planJobs(dependencies, sql, { ...frame, left, leftQueues }, named);
}

/** Where nothing can be done, the reason is the answer. */
async function planJobs(
  dependencies: RepairDependencies,
  sql: Sql,
  frame: RepairPlan,
  named: readonly JobName[],
): Promise<RepairPlan | RepairRefused> {
  const looked = await examineJobs(dependencies, sql, frame, named, { lock: false });
  const jobs = looked.flatMap(({ planned }) => ('plan' in planned ? [planned.plan] : []));
  const leftOut = looked.flatMap(({ target, planned }) => ('refusal' in planned ? [{ target, why: planned.refusal }] : []));
  if (jobs.length > 0) return { ...frame, jobs, leftOut };
  const [first, ...others] = leftOut;
  const message = others.length === 0 ? (first?.why ?? 'there is nothing to do') : 'none of the targets can be repaired so';
  return refuse('impossible', message, leftOut);
}

/** A job as it is now, and what can be done to it. */
export interface Examined {
  /** `QUEUE/JOB-ID`. */
  target: string;
  /** Null where it is gone. */
  now: JobBefore | null;
  planned: JobPlanned;
}

/**
 * Looks at those jobs anew, within `frame`: whoever is asked for by an executor's repair must still be its.
 * @param options `lock`: they are waited for, and stay as they are until the transaction ends.
 */
export async function examineJobs(
  { jobs, registry, policies, flows }: Pick<RepairDependencies, 'jobs' | 'registry' | 'policies' | 'flows'>,
  sql: Sql,
  frame: RepairPlan,
  named: readonly JobName[],
  { lock, answers }: { lock: boolean; answers?: PolicyAnswers },
): Promise<Examined[]> {
  const action = frame.action === 'executor_rescue' ? 'job_rescue' : (frame.action as JobAction);
  const policy = frame.action === 'job_discard' ? 'discard' : frame.policy;
  const facts = await readFacts({ jobs, registry, resolve: await policies(sql, answers) }, sql, named, { policy, lock });
  const copies = Map.groupBy(action === 'job_retry' ? await flows.listCopies(sql, named, MOST_COPIES) : [], ({ of }) => of);
  return facts.map((found) => {
    const target = `${found.queue}/${found.jobId}`;
    const one = { ...found, copies: copies.get(target) ?? [] };
    return { target, now: beforeOf(action, one), planned: whyNotOf(frame, one) ?? planJob(action, one) };
  });
}

function whyNotOf({ executor }: RepairPlan, { owner }: JobFacts): { refusal: string } | undefined {
  if (!executor || !owner || owner.executorId === executor.id) return undefined;
  return { refusal: `it is ${owner.executorId}'s: a repair of that one takes it` };
}

/** Every queue that it touches must be the actor's to repair; null when it is. */
export async function findDenial(authorize: Authorize, actor: string, plan: RepairPlan): Promise<string | null> {
  for (const resource of resourcesOf(plan)) {
    const decision = await authorize(actor, plan.action as Action, resource);
    if (!decision.allowed) return decision.sentence;
  }
  return null;
}

const queuesOf = (targets: readonly string[]) => [...new Set(targets.map((target) => (parseJobTarget(target) as JobName).queue))];

function resourcesOf({ executor, jobs, leftOut, leftQueues, unit, flow }: RepairPlan): Resource[] {
  if (flow) return queuesOf([flow.target, ...flow.jobs]).map((name): Resource => ({ kind: 'queue', name }));
  const queues = executor
    ? [...new Set([...queuesOf([...jobs, ...leftOut].map(({ target }) => target)), ...leftQueues])]
    : [...new Set(jobs.map(({ queue }) => queue))];
  // A unit's own right is not one on the queues whose attempts end with it.
  if (unit)
    return [
      { kind: 'unit', node: unit.node, name: unit.unit },
      ...(executor && queues.length > 0 ? [{ kind: 'executor', id: executor.id, queues } as const] : []),
    ];
  return executor ? [{ kind: 'executor', id: executor.id, queues }] : queues.map((name): Resource => ({ kind: 'queue', name }));
}
