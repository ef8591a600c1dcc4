import type { FlowStore, JobRef } from '../actions/flow-store.ts';
import type { WorkflowDoor, WorkflowOrder } from '../actions/workflow-door.ts';
import type { IncidentChanges } from '../incidents/incident.ts';
import { readLookTime } from '../incidents/incident.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { addChains, FLOW_PREFIX, fingerprintOf, judge, nameOf, type StuckFlow, type StuckLook, walkBlocked } from './find-stuck.ts';
import { listOpenFlows, type OpenFlow, projectStuckFlows } from './flow-incidents.ts';
import { type FlowPolicyRule, flowPolicyOf } from './policy.ts';
import { countActions, saveAction, wasEndedOnPurpose } from './queries.ts';
import { listRemembered, readPosition, savePosition } from './stuck-queries.ts';

export interface FlowDependencies {
  database: Database;
  flows: FlowStore;
  door: WorkflowDoor;
  rules: readonly FlowPolicyRule[];
  node: string;
  /** Who lets it happen, as the audit says. */
  actor: string;
  dryRun: boolean;
}

/** In a dry run `resolved`, `retried` and `cancelled` say what would have been. */
export interface FlowsReport extends StuckLook {
  /** Parents that completed without their children being told. */
  unresolved: number;
  resolved: number;
  retried: number;
  cancelled: number;
  incidents: IncidentChanges;
  /** What could not be settled does not keep the rest from it, nor from being told of. */
  failures: unknown[];
}

/** Of pg-boss's resolver, which turns every 5 s, so that it is given three turns. */
const UNRESOLVED_AFTER_SECONDS = 15;
const MOST_UNRESOLVED = 10_000;
/** Blocked jobs that one turn looks at; the next goes on there. Some two seconds of the database's time. */
const LOOKED_AT_A_TURN = 50_000;
/** Flows beyond are settled by their policy all the same. */
const MOST_INCIDENTS = 10_000;
/** Of flows whose parents are not known. */
const MOST_REMEMBERED = 20_000;

/**
 * One turn: what completed without word is resolved through pg-boss, what a queue's policy settles is settled, the rest
 * is an incident each, with its evidence copied before retention deletes it. A turn looks at every flow that has an
 * incident, and at a part of all blocked jobs besides; an incident is resolved by a look at its own flow only.
 * @param options.whole looks at all of the blocked jobs, and leaves the turns' position as it is.
 */
export async function settleFlows(dependencies: FlowDependencies, { whole = false }: { whole?: boolean } = {}): Promise<FlowsReport> {
  const { database, flows, door, node, actor, dryRun } = dependencies;
  const report = { resolved: 0, retried: 0, cancelled: 0 };
  const failures: unknown[] = [];
  const attempt = (work: () => Promise<void>) => work().catch((error: unknown) => void failures.push(error));
  if (!dryRun)
    await attempt(async () => {
      report.resolved = (await door.resolveCompleted(database, { actor, reason: null }, UNRESOLVED_AFTER_SECONDS)).length;
    });
  const unresolved = await countUnresolved(database, flows);
  if (dryRun) report.resolved = unresolved;

  const walk = dryRun ? 'dry run' : 'act';
  const lookedAt = await readLookTime(database);
  const from = whole ? null : await readPosition(database, walk);
  const { children, parents, next } = await walkBlocked(database, flows, from, whole ? Number.MAX_SAFE_INTEGER : LOOKED_AT_A_TURN);
  const open = await listOpenFlows(database);
  const look = () => lookAgain(database, flows, open, [...open.flatMap(knownParent), ...parents], children);
  let { stuck, unseen } = await look();
  if (dryRun) {
    await addChains(database, flows, stuck);
    await foretell(dependencies, stuck, report);
  } else {
    const ended = new Set<string>();
    for (const flow of stuck) await attempt(() => applyPolicy(dependencies, flow, report, ended));
    if (report.retried + report.cancelled > 0) ({ stuck, unseen } = await look());
  }
  const told = withIncidents(stuck, open);
  if (!dryRun) await addChains(database, flows, told);
  const incidents = dryRun ? { opened: [], resolved: [] } : await projectStuckFlows(database, node, told, open, unseen, lookedAt);
  if (!whole) await savePosition(database, walk, next);
  const isWhole = told.length === stuck.length && !told.some(({ more }) => more);
  const complete = from === null && next === null && unseen.length === 0 && isWhole;
  return { flows: told, complete, unresolved, ...report, incidents, failures };
}

export async function countUnresolved(sql: Sql, flows: FlowStore): Promise<number> {
  let count = 0;
  for (const queues of await flows.listLeaves(sql))
    count += await flows.countUnresolved(sql, queues, UNRESOLVED_AFTER_SECONDS, MOST_UNRESOLVED);
  return count;
}

function knownParent({ fingerprint }: OpenFlow): JobRef[] {
  const parent = /^(?<queue>.+)\/(?<jobId>[0-9a-f-]{36})$/.exec(fingerprint.slice(FLOW_PREFIX.length))?.groups as unknown as
    | JobRef
    | undefined;
  return parent ? [{ queue: parent.queue, jobId: parent.jobId }] : [];
}

/** So that of more than one look judges each has its turn. */
const inAnyOrder = (jobs: readonly JobRef[]) =>
  jobs
    .map((job) => ({ job, order: Math.random() }))
    .sort((a, b) => a.order - b.order)
    .map(({ job }) => job);

/** @returns `unseen`: fingerprints of the open incidents whose flows this look did not get to. */
async function lookAgain(sql: Sql, flows: FlowStore, open: readonly OpenFlow[], parents: readonly JobRef[], found: readonly JobRef[]) {
  const nameless = open.filter((incident) => knownParent(incident).length === 0).map(({ fingerprint }) => fingerprint);
  const remembered = nameless.length === 0 ? [] : await listRemembered(sql, nameless, MOST_REMEMBERED);
  const asked = inAnyOrder([...new Map(parents.map((parent) => [nameOf(parent), parent])).values()]);
  const { stuck, unseen } = await judge(sql, flows, asked, [...found, ...remembered]);
  const passedOver = new Set(unseen.map((parent) => `${FLOW_PREFIX}${nameOf(parent)}`));
  return {
    stuck,
    unseen: [
      ...open.map(({ fingerprint }) => fingerprint).filter((fingerprint) => passedOver.has(fingerprint)),
      ...(remembered.length < MOST_REMEMBERED ? [] : nameless),
    ],
  };
}

/** Those that have an incident, and others while there is room for more. */
function withIncidents(stuck: readonly StuckFlow[], open: readonly OpenFlow[]): StuckFlow[] {
  const known = new Set(open.map(({ fingerprint }) => fingerprint));
  const { true: old = [], false: others = [] } = Object.groupBy(stuck, (flow) => (known.has(fingerprintOf(flow)) ? 'true' : 'false'));
  return [...old, ...others.slice(0, Math.max(0, MOST_INCIDENTS - known.size))];
}

const policyOf = ({ rules }: FlowDependencies, { parents, children }: StuckFlow) =>
  flowPolicyOf(
    rules,
    (parents.length > 0 ? parents : children.slice(0, 1)).map(({ queue }) => queue),
  );

/** @param ended jobs that were cancelled in this turn: those that flows have in common are so once. */
async function applyPolicy(
  dependencies: FlowDependencies,
  flow: StuckFlow,
  report: { retried: number; cancelled: number },
  ended: Set<string>,
): Promise<void> {
  const { database, door, actor } = dependencies;
  const { policy, max } = policyOf(dependencies, flow);
  const order = { actor, reason: null, detail: { policy } };
  if (policy === 'cancel-children') {
    const children = flow.children.filter((child) => !ended.has(nameOf(child)));
    if (children.length > 0) report.cancelled += await cancelAll(dependencies, order, flow, children, ended);
  }
  if (policy !== 'retry-parent') return;
  const retried = await database.transaction(async (tx) => {
    const parent = await retryable(dependencies, tx, flow, max);
    if (!parent || !(await door.retryParent(tx, order, parent)).done) return false;
    await saveAction(tx, parent.queue, parent.jobId, 'retry');
    return true;
  });
  if (retried) report.retried += 1;
}

/**
 * Who cancelled or discarded a parent meant it, and one that is poison kills its worker. Of one that failed and has a dead letter queue a
 * copy went there: whether that is worked on, was, or was purged, its work could be done twice. Only other failures are tried again.
 */
async function retryable({ flows }: FlowDependencies, sql: Sql, flow: StuckFlow, max: number) {
  const { parents, parentRetryCount, reason, deadLetter } = flow;
  const [parent] = parents;
  if (reason !== 'parent_failed' || !parent || parentRetryCount === null || deadLetter !== null) return undefined;
  if (await wasEndedOnPurpose(sql, { ...parent, retryCount: parentRetryCount })) return undefined;
  if ((await countActions(sql, parent.queue, parent.jobId, 'retry')) >= max) return undefined;
  if ((await flows.listCopies(sql, [parent], 1)).length > 0) return undefined;
  return { ...parent, retryCount: parentRetryCount, state: 'failed' } as const;
}

/** Where there are too many for one transaction, half of the children at a time: each with everything behind it. */
async function cancelAll(
  dependencies: FlowDependencies,
  order: WorkflowOrder,
  flow: StuckFlow,
  children: readonly JobRef[],
  ended: Set<string>,
): Promise<number> {
  const { database, door } = dependencies;
  const target = flow.parent ?? nameOf(children[0] as JobRef);
  const change = await database.transaction((tx) => door.cancelDescendants(tx, order, target, children));
  if (change.done) {
    for (const job of change.jobs) ended.add(job);
    return change.jobs.length;
  }
  if (!change.tooMany) return 0;
  if (children.length === 1) throw new Error(change.moved);
  const half = Math.ceil(children.length / 2);
  let cancelled = 0;
  for (const part of [children.slice(0, half), children.slice(half)]) cancelled += await cancelAll(dependencies, order, flow, part, ended);
  return cancelled;
}

/** What the policies would do. */
async function foretell(dependencies: FlowDependencies, stuck: readonly StuckFlow[], report: { retried: number; cancelled: number }) {
  const cancelled = new Set<string>();
  for (const flow of stuck) {
    const { policy, max } = policyOf(dependencies, flow);
    if (policy === 'cancel-children') for (const job of flow.chain) cancelled.add(nameOf(job));
    if (policy === 'retry-parent' && (await retryable(dependencies, dependencies.database, flow, max))) report.retried += 1;
  }
  report.cancelled = cancelled.size;
}
