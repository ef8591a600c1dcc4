import type { StuckReason } from '../actions/flow-store.ts';
import { type Finding, type IncidentChanges, listOpenEvidence, project } from '../incidents/incident.ts';
import { lockClass } from '../incidents/queries.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { FLOW_PREFIX, fingerprintOf, nameOf, type StuckFlow } from './find-stuck.ts';
import {
  forgetResolved,
  type LossRow,
  listLosses,
  listOthersOpen,
  noteLosses,
  rememberJobs,
  type StuckJobRecord,
} from './stuck-queries.ts';

/** What the evidence names; the counts are exact. */
const NAMED_PARENTS = 20;
const NAMED_CHILDREN = 20;
const NAMED_CHAIN = 50;
const NAMED_LOST = 20;

export interface OpenFlow {
  fingerprint: string;
  evidence: FlowEvidence;
}

interface FlowEvidence {
  parent: string | null;
  parents?: string[];
}

export async function listOpenFlows(sql: Sql): Promise<OpenFlow[]> {
  return (await listOpenEvidence<FlowEvidence>(sql, 'workflow_stuck')).filter(({ fingerprint }) => fingerprint.startsWith(FLOW_PREFIX));
}

/**
 * Opens, brings up to date and resolves the incidents of flows. Jobs that vanished while they waited in vain never ran: their
 * incident stays until somebody has acknowledged it who could know of that. What another look has opened since is not this
 * one's to resolve.
 * @param open those that were open before this look, which judged them or did not get to them (`unseen`).
 */
export function projectStuckFlows(
  database: Database,
  node: string,
  flows: readonly StuckFlow[],
  open: readonly OpenFlow[],
  unseen: readonly string[],
  lookedAt: string,
): Promise<IncidentChanges> {
  return database.transaction(async (tx) => {
    const passedOver = new Set(unseen);
    const judged = open.filter(({ fingerprint }) => !passedOver.has(fingerprint));
    const names = judged.map(({ fingerprint }) => fingerprint);
    // Nobody opens another before this is over.
    await lockClass(tx, 'workflow_stuck');
    if (names.length > 0) await noteLosses(tx, names);
    const losses = new Map((open.length > 0 ? await listLosses(tx, NAMED_LOST) : []).map((loss) => [loss.fingerprint, loss]));
    const findings = flows.map((flow) => describe(flow, losses.get(fingerprintOf(flow))));
    const found = new Set(findings.map(({ fingerprint }) => fingerprint));
    for (const incident of judged) {
      const loss = losses.get(incident.fingerprint);
      if (loss && !loss.acknowledged && !found.has(incident.fingerprint)) findings.push(describeLoss(incident, loss));
    }
    const unknown = await listOthersOpen(tx, FLOW_PREFIX, names);
    const changes = await project(tx, node, { class: 'workflow_stuck', prefix: FLOW_PREFIX, unknown, lookedAt }, findings);
    await rememberJobs(tx, flows.flatMap(recordsOf));
    if (changes.resolved.length > 0) await forgetResolved(tx);
    return changes;
  });
}

function recordsOf(flow: StuckFlow): StuckJobRecord[] {
  const fingerprint = fingerprintOf(flow);
  const parents = flow.parents.map(nameOf);
  const direct = new Set(flow.children.map(nameOf));
  return flow.chain.flatMap(({ queue, jobId }) => {
    const known = direct.has(nameOf({ queue, jobId })) && parents.length > 0 ? parents : [''];
    return known.map((parent) => ({ fingerprint, queue, jobId, parent }));
  });
}

const jobs = (count: number, more = false) => (count === 1 ? 'one job' : `${more ? 'more than ' : ''}${count} jobs`);

const ENDED: Record<StuckReason, string> = {
  parent_failed: 'failed',
  parent_cancelled: 'was cancelled',
  parent_gone: 'is gone unresolved',
};

function endOf({ parent, parents, reason, children }: StuckFlow): string {
  if (parent !== null) return `${parent} ${ENDED[reason]}`;
  if (parents.length > 0) return `${parents.length} parents are gone, unresolved`;
  return `what jobs of ${children[0]?.queue} wait for is gone, and with it its record`;
}

const lostOf = ({ count, jobs: named }: LossRow) => ({ count, jobs: named });

function describe(flow: StuckFlow, loss: LossRow | undefined): Finding {
  const { parent, parents, reason, deadLetter, since, children, chain, more } = flow;
  const deletedAt = chain.map((job) => job.deletedAt).sort()[0] ?? null;
  const lost = loss
    ? `; ${jobs(loss.count)} that waited too ${loss.count === 1 ? 'is' : 'are'} gone, and nobody saw ${loss.count === 1 ? 'it' : 'them'} run`
    : '';
  return {
    class: 'workflow_stuck',
    fingerprint: fingerprintOf(flow),
    summary: `${endOf(flow)}: ${jobs(chain.length, more)} ${chain.length === 1 ? 'waits' : 'wait'} in vain; retention deletes the first at ${deletedAt}${lost}`,
    evidence: {
      parent,
      ...(parents.length > 1 ? { parents: parents.slice(0, NAMED_PARENTS).map(nameOf) } : {}),
      reason,
      deadLetter,
      since,
      deletedAt,
      ...(more ? { counted: chain.length } : {}),
      children: children.slice(0, NAMED_CHILDREN).map(nameOf),
      chain: chain.slice(0, NAMED_CHAIN).map(({ queue, jobId, state, waitsForQueue, waitsForId, deletedAt: deleted }) => ({
        job: `${queue}/${jobId}`,
        state,
        waitsFor: waitsForQueue === null ? null : `${waitsForQueue}/${waitsForId}`,
        deletedAt: deleted,
      })),
      ...(loss ? { lost: lostOf(loss) } : {}),
    },
    affected: chain.length,
    queues: [...new Set([...parents, ...chain].map(({ queue }) => queue))].sort(),
  };
}

/** Nothing waits any more, but what vanished before has not been seen by anybody. */
function describeLoss({ fingerprint, evidence }: OpenFlow, loss: LossRow): Finding {
  const { count } = loss;
  return {
    class: 'workflow_stuck',
    fingerprint,
    summary: `${jobs(count)} that waited in vain${evidence.parent === null ? '' : ` for ${evidence.parent}`} ${count === 1 ? 'is' : 'are'} gone, and nobody saw ${count === 1 ? 'it' : 'them'} run: acknowledge it to close this`,
    evidence: { ...evidence, nothingWaits: true, lost: lostOf(loss) },
    affected: count,
    queues: queuesOf(evidence, loss),
  };
}

function queuesOf({ parent, parents = [] }: FlowEvidence, { jobs: lost }: LossRow): string[] {
  const names = [...(parent === null ? [] : [parent]), ...parents, ...lost];
  return [...new Set(names.map((name) => name.slice(0, name.lastIndexOf('/'))))].sort();
}
