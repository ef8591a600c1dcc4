import type { Descendant, FlowStore, JobRef, StuckChild, StuckReason } from '../actions/flow-store.ts';
import type { WorkflowDoor } from '../actions/workflow-door.ts';
import { appendAudit } from '../audit/append.ts';
import { type Finding, type IncidentChanges, listOpenEvidence, project } from '../incidents/incident.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { type FlowPolicyRule, flowPolicyOf } from './policy.ts';
import { countActions, saveAction } from './queries.ts';

/** Blocked jobs that will never run by themselves, with what keeps them. */
export interface StuckFlow {
  /** `QUEUE/JOB-ID`; null where the parent went with its record. */
  parent: string | null;
  parentRef: JobRef | null;
  parentRetryCount: number | null;
  reason: StuckReason;
  deadLetter: string | null;
  since: string;
  /** Those that wait for the parent itself. */
  children: JobRef[];
  /** They and everything behind them. */
  chain: Descendant[];
}

export interface StuckLook {
  flows: StuckFlow[];
  /** False where there were more than one look takes in. */
  complete: boolean;
  /** Parents that completed without their children being told. */
  unresolved: number;
}

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

export interface FlowsReport extends StuckLook {
  resolved: number;
  retried: number;
  cancelled: number;
  incidents: IncidentChanges;
  /** What could not be settled does not keep the rest from it, nor from being told of. */
  failures: unknown[];
}

/** Of pg-boss's resolver, which turns every 5 s, so that it is given three turns. */
const UNRESOLVED_AFTER_SECONDS = 15;
const MOST_CHILDREN = 10_000;
const MOST_UNRESOLVED = 1_000;
/** What the evidence names; the counts are exact. */
const NAMED_CHILDREN = 20;
const NAMED_CHAIN = 50;

const PREFIX = 'workflow_stuck:flow:';
const nameOf = ({ queue, jobId }: JobRef) => `${queue}/${jobId}`;
const byName = (a: JobRef, b: JobRef) => (nameOf(a) < nameOf(b) ? -1 : 1);
const fingerprintOf = (flow: StuckFlow) => `${PREFIX}${flow.parent ?? `of ${nameOf(flow.children[0] as JobRef)}`}`;

/** One look at every leaf table: what waits in vain, and behind whom. Reads only. */
export async function findStuckFlows(sql: Sql, flows: FlowStore): Promise<StuckLook> {
  const children: StuckChild[] = [];
  let complete = true;
  let unresolved = 0;
  for (const queues of await flows.listLeaves(sql)) {
    unresolved += await flows.countUnresolved(sql, queues, UNRESOLVED_AFTER_SECONDS, MOST_UNRESOLVED);
    const found = await flows.listStuck(sql, queues, MOST_CHILDREN);
    if (new Set(found.map(({ jobId }) => jobId)).size >= MOST_CHILDREN) complete = false;
    children.push(...found);
  }
  const grouped = group(children);
  const roots = grouped.flatMap((flow, root) => flow.children.map((child) => ({ ...child, root })));
  const limit = MOST_CHILDREN * 2;
  const chains = roots.length === 0 ? [] : await flows.listDescendants(sql, roots, limit);
  if (chains.length >= limit) complete = false;
  for (const descendant of chains) grouped[descendant.root]?.chain.push(descendant);
  for (const { chain, children: direct } of grouped) for (const jobs of [chain, direct]) jobs.sort(byName);
  return { flows: grouped, complete, unresolved };
}

/** By parent. A child of which several parents are gone says which is to blame no more than one whose parent is unknown. */
function group(children: readonly StuckChild[]): StuckFlow[] {
  const flows = new Map<string, StuckFlow>();
  for (const [name, causes] of Map.groupBy(children, nameOf)) {
    const gone = causes.filter(({ reason }) => reason === 'parent_gone');
    const told = gone.length > 1 ? causes.filter(({ reason }) => reason !== 'parent_gone') : causes;
    const kept = told.length > 0 ? told : gone.slice(0, 1).map((cause) => ({ ...cause, parentQueue: null, parentId: null }));
    for (const { queue, jobId, ...cause } of kept) {
      const { parentQueue, parentId, reason, since, deadLetter, parentRetryCount } = cause;
      const parentRef = parentQueue !== null && parentId !== null ? { queue: parentQueue, jobId: parentId } : null;
      const parent = parentRef && nameOf(parentRef);
      const key = parent ?? `of ${name}`;
      const flow = flows.get(key) ?? { parent, parentRef, parentRetryCount, reason, deadLetter, since, children: [], chain: [] };
      flow.children.push({ queue, jobId });
      flows.set(key, flow);
    }
  }
  return [...flows.values()];
}

/**
 * One turn: what completed without word is resolved through pg-boss, what a queue's policy settles is settled, the rest
 * is an incident each, with its evidence copied before retention deletes it.
 */
export async function settleFlows(dependencies: FlowDependencies): Promise<FlowsReport> {
  const { database, flows, node, actor, dryRun } = dependencies;
  let look = await findStuckFlows(database, flows);
  const report = { resolved: 0, retried: 0, cancelled: 0 };
  const failures: unknown[] = [];
  const attempt = (work: () => Promise<void>) => work().catch((error: unknown) => void failures.push(error));
  if (!dryRun && look.unresolved > 0)
    await attempt(async () => {
      await flows.resolve();
      report.resolved = look.unresolved;
      const event = { actor, action: 'workflow_resolve', target: 'flows', outcome: 'done', reason: null, node } as const;
      await appendAudit(database, { ...event, detail: { parents: report.resolved } });
    });
  if (!dryRun) for (const flow of look.flows) await attempt(() => applyPolicy(dependencies, flow, report));
  if (report.resolved + report.retried + report.cancelled > 0) look = await findStuckFlows(database, flows);
  const incidents = dryRun ? { opened: [], resolved: [] } : await projectStuckFlows(dependencies, look);
  return { ...look, ...report, incidents, failures };
}

async function applyPolicy(dependencies: FlowDependencies, flow: StuckFlow, report: { retried: number; cancelled: number }): Promise<void> {
  const { database, door, rules, actor } = dependencies;
  const { parentRef, parentRetryCount, reason, children } = flow;
  const { policy, max } = flowPolicyOf(rules, (parentRef ?? (children[0] as JobRef)).queue);
  const order = { actor, reason: null, detail: { policy } };
  if (policy === 'cancel-children') {
    const change = await database.transaction((tx) =>
      door.cancelDescendants(tx, order, flow.parent ?? nameOf(children[0] as JobRef), children),
    );
    if (change.done) report.cancelled += change.jobs.length;
  }
  // Who cancelled a parent meant it; only a failure is tried again.
  if (policy === 'retry-parent' && reason === 'parent_failed' && parentRef && parentRetryCount !== null) {
    const retried = await database.transaction(async (tx) => {
      if ((await countActions(tx, parentRef.queue, parentRef.jobId, 'retry')) >= max) return false;
      const change = await door.retryParent(tx, order, { ...parentRef, retryCount: parentRetryCount, state: 'failed' });
      if (change.done) await saveAction(tx, parentRef.queue, parentRef.jobId, 'retry');
      return change.done;
    });
    if (retried) report.retried += 1;
  }
}

interface FlowEvidence {
  parent: string | null;
  children: string[];
  chain: object[];
}

/** Children that vanished while they were stuck never ran: their incident stays until somebody has acknowledged it. */
async function projectStuckFlows({ database, flows, node }: FlowDependencies, look: StuckLook): Promise<IncidentChanges> {
  const findings = look.flows.map(describe);
  const found = new Set(findings.map(({ fingerprint }) => fingerprint));
  const open = (await listOpenEvidence<FlowEvidence>(database, 'workflow_stuck')).filter(({ fingerprint }) =>
    fingerprint.startsWith(PREFIX),
  );
  const unknown: string[] = [];
  for (const { fingerprint, evidence, acknowledged } of open) {
    if (found.has(fingerprint) || acknowledged) continue;
    const named = evidence.children.map(parseName);
    const present = look.complete ? await flows.listPresent(database, named) : new Set<string>();
    if (present.size < named.length) unknown.push(fingerprint);
  }
  return project(database, node, { class: 'workflow_stuck', prefix: PREFIX, unknown }, findings);
}

function parseName(name: string): JobRef {
  const slash = name.lastIndexOf('/');
  return { queue: name.slice(0, slash), jobId: name.slice(slash + 1) };
}

const ENDED: Record<StuckReason, string> = {
  parent_failed: 'failed',
  parent_cancelled: 'was cancelled',
  parent_gone: 'is gone unresolved',
};

function describe(flow: StuckFlow): Finding {
  const { parent, reason, deadLetter, since, children, chain } = flow;
  const waiting = chain.length === 1 ? 'one job waits' : `${chain.length} jobs wait`;
  const deletedAt = chain.map((job) => job.deletedAt).sort()[0] ?? null;
  return {
    class: 'workflow_stuck',
    fingerprint: fingerprintOf(flow),
    summary: `${parent ?? 'its parent'} ${ENDED[reason]}: ${waiting} in vain; retention deletes the first at ${deletedAt}`,
    evidence: {
      parent,
      reason,
      deadLetter,
      since,
      deletedAt,
      children: children.slice(0, NAMED_CHILDREN).map(nameOf),
      chain: chain.slice(0, NAMED_CHAIN).map(({ queue, jobId, state, waitsForQueue, waitsForId, deletedAt: deleted }) => ({
        job: `${queue}/${jobId}`,
        state,
        waitsFor: waitsForQueue === null ? null : `${waitsForQueue}/${waitsForId}`,
        deletedAt: deleted,
      })),
    },
    affected: chain.length,
    queues: [...new Set([...(flow.parentRef ? [flow.parentRef.queue] : []), ...chain.map(({ queue }) => queue)])].sort(),
  };
}
