import type { FlowStore } from '../actions/flow-store.ts';
import type { SupervisionStore } from '../actions/supervision-store.ts';
import type { FleetState } from '../fleet/queries.ts';
import { type Finding, type IncidentChanges, project } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';

/** By default pg-boss's pass may be a supervise interval and a monitor interval away, 60 s each; and as much again. */
const OVERDUE_SECONDS = 240;
const IDLE_SECONDS = 300;
/** Passes that somebody configured to be slower are given their own time twice. */
const PASSES = 2;
const UNRESOLVED_SECONDS = 120;
const MOST_COUNTED = 1_000;

const PREFIX = 'supervision_stalled:pgboss:';

export interface SupervisionWatch {
  supervision: SupervisionStore;
  flows: Pick<FlowStore, 'listLeaves' | 'countUnresolved'>;
  /** Whether the daemons have taken supervision over. */
  takenOver: boolean;
}

/**
 * What pg-boss's supervision should have done by now, and has not. While an outage is not far enough back that it could
 * have, nothing is known.
 */
export async function projectSupervision(sql: Sql, node: string, fleet: FleetState, watch: SupervisionWatch): Promise<IncidentChanges> {
  const { comebackSeconds, ownBeatFresh } = fleet;
  if (!ownBeatFresh || (comebackSeconds !== null && comebackSeconds < OVERDUE_SECONDS)) return { opened: [], resolved: [] };
  return project(sql, node, { class: 'supervision_stalled', prefix: PREFIX }, await findStalls(sql, watch));
}

/** Reads only. */
export async function findStalls(sql: Sql, { supervision, flows, takenOver }: SupervisionWatch): Promise<Finding[]> {
  const findings: Finding[] = [];
  const { passSeconds } = await supervision.readPace(sql);
  const slowest = PASSES * (passSeconds ?? 0);
  const [overdueSeconds, idleSeconds] = [Math.max(OVERDUE_SECONDS, slowest), Math.max(IDLE_SECONDS, slowest)];
  const overdue = await supervision.listOverdue(sql, overdueSeconds, MOST_COUNTED);
  if (overdue.length > 0) {
    const affected = overdue.reduce((sum, { count }) => sum + count, 0);
    const summary = `active jobs are past their expiry or their beat by ${overdueSeconds} s and more, and pg-boss has not failed them`;
    findings.push(finding('overdue', summary, { queues: overdue.slice(0, 50).map(({ queue }) => queue) }, affected));
  }
  const { queues, claimSeconds, idle, instances, supervising } = await supervision.readMonitoring(sql, idleSeconds);
  const who = takenOver
    ? 'the daemons have taken it over, and'
    : supervising > 0
      ? 'there are instances that should, but'
      : 'no instance does:';
  if (queues > 0 && (instances > 0 || takenOver) && (claimSeconds ?? 0) > idleSeconds)
    findings.push(finding('nobody', `nobody supervises pg-boss's queues: ${who} no pass was claimed for ${idleSeconds} s`, {}, queues));
  if (idle.length > 0)
    findings.push(
      finding('idle', 'passes over queues are claimed, but their work is not done', { queues: idle.slice(0, 50) }, idle.length),
    );
  let unresolved = 0;
  for (const leaf of await flows.listLeaves(sql)) unresolved += await flows.countUnresolved(sql, leaf, UNRESOLVED_SECONDS, MOST_COUNTED);
  if (unresolved > 0) findings.push(finding('flows', 'completed parents have not been resolved: their children wait', {}, unresolved));
  return findings;
}

function finding(trouble: string, summary: string, evidence: object, affected: number): Finding {
  return { class: 'supervision_stalled', fingerprint: `${PREFIX}${trouble}`, summary, evidence: { trouble, ...evidence }, affected };
}
