import type { FlowStore } from '../actions/flow-store.ts';
import type { SupervisionStore } from '../actions/supervision-store.ts';
import { areTurnsTaken } from '../claims/turn.ts';
import type { FleetState } from '../fleet/queries.ts';
import { type Finding, type IncidentChanges, project, readLookTime } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';
import { freeSeconds, SUPERVISE_TURN, type SupervisionLimits } from './take-over.ts';

/** By default pg-boss's pass may be a supervise interval and a monitor interval away, 60 s each; and as much again. */
const OVERDUE_SECONDS = 240;
const IDLE_SECONDS = 300;
/** Passes that somebody configured to be slower are given their own time twice. */
const PASSES = 2;
/** What is overdue for so long is told of, whatever keeps supervision from it: a host that comes back again and again would for ever. */
const NEGLECTED_SECONDS = 1_800;
const UNRESOLVED_SECONDS = 120;
/** After so long without a turn nobody has taken supervision over any more. */
const TURNS_END_SECONDS = 60;
const MOST_COUNTED = 1_000;
const MOST_NAMED = 50;

const PREFIX = 'supervision_stalled:pgboss:';

const TROUBLES = ['overdue', 'nobody', 'idle', 'twice', 'flows'] as const;
type Trouble = (typeof TROUBLES)[number];

export interface SupervisionWatch {
  supervision: SupervisionStore;
  flows: Pick<FlowStore, 'listLeaves' | 'countUnresolved'>;
  /** Whether the daemons have taken supervision over. */
  takenOver: boolean;
}

export interface Stalls {
  findings: Finding[];
  /** Fingerprints that could not be judged: whoever supervises has not had the time for it yet, or another daemon knows. */
  unknown: string[];
}

/**
 * What pg-boss's supervision should have done by now, and has not. While an outage is not far enough back that it could
 * have, nothing is known but what it has neglected for far longer.
 */
export async function projectSupervision(
  sql: Sql,
  node: string,
  fleet: FleetState,
  watch: SupervisionWatch & SupervisionLimits,
): Promise<IncidentChanges> {
  const { comebackSeconds, ownBeatFresh } = fleet;
  if (!ownBeatFresh) return { opened: [], resolved: [] };
  const lookedAt = await readLookTime(sql);
  const isCalm = comebackSeconds === null || comebackSeconds >= OVERDUE_SECONDS;
  const { findings, unknown } = isCalm ? await findStalls(sql, watch, freeSeconds(fleet, watch) ?? 0) : await findNeglected(sql, watch);
  return project(sql, node, { class: 'supervision_stalled', prefix: PREFIX, unknown, lookedAt }, findings);
}

async function findNeglected(sql: Sql, { supervision }: SupervisionWatch): Promise<Stalls> {
  const unknown = TROUBLES.map((trouble) => PREFIX + trouble);
  return { findings: await findOverdue(sql, supervision, NEGLECTED_SECONDS), unknown };
}

async function findOverdue(sql: Sql, supervision: SupervisionStore, seconds: number): Promise<Finding[]> {
  const overdue = await supervision.listOverdue(sql, seconds, MOST_COUNTED);
  const affected = overdue.reduce((sum, { count }) => sum + count, 0);
  const summary = `active jobs are past their expiry or their beat by ${seconds} s and more, and pg-boss has not failed them`;
  const queues = overdue.map(({ queue }) => queue);
  return affected === 0 ? [] : [stall('overdue', summary, { queues: queues.slice(0, MOST_NAMED) }, affected, queues)];
}

/** Of many queues the evidence names some; whoever attends to it needs the right on all. */
const stall = (trouble: Trouble, summary: string, evidence: object, affected: number, queues: readonly string[] = []): Finding => ({
  class: 'supervision_stalled',
  fingerprint: PREFIX + trouble,
  summary,
  evidence: { trouble, ...evidence },
  affected,
  queues,
});

/** Reads only. @param daemonSeconds for how long the daemons could have made a pass, where they have taken it over. */
export async function findStalls(sql: Sql, { supervision, flows, takenOver }: SupervisionWatch, daemonSeconds: number): Promise<Stalls> {
  const findings: Finding[] = [];
  const unknown: string[] = [];
  const found = (...told: Parameters<typeof stall>) => void findings.push(stall(...told));
  const { passSeconds } = await supervision.readPace(sql);
  const slowest = PASSES * (passSeconds ?? 0);
  const [overdueSeconds, idleSeconds] = [Math.max(OVERDUE_SECONDS, slowest), Math.max(IDLE_SECONDS, slowest)];
  const seen = await supervision.readMonitoring(sql, idleSeconds);
  const { queues, claimSeconds, idle, instances, supervising, instanceSeconds, supervisingSeconds } = seen;
  // Who has come up just now, or is held, has not had the time for a pass.
  const hadTime = (takenOver ? daemonSeconds : supervising.length > 0 ? supervisingSeconds : instanceSeconds) >= idleSeconds;

  if (takenOver && !hadTime) unknown.push(`${PREFIX}overdue`);
  findings.push(...(await findOverdue(sql, supervision, takenOver && !hadTime ? Math.max(NEGLECTED_SECONDS, slowest) : overdueSeconds)));

  const who = takenOver
    ? 'the daemons have taken it over, and'
    : supervising.length > 0
      ? 'there are instances that should, but'
      : 'no instance does:';
  if (queues > 0 && (instances > 0 || takenOver) && (claimSeconds ?? 0) > idleSeconds) {
    if (hadTime) found('nobody', `nobody supervises pg-boss's queues: ${who} no pass was claimed for ${idleSeconds} s`, {}, queues);
    else unknown.push(`${PREFIX}nobody`);
  }

  // A claim that ends a pause looks the same until its counts are written: somebody must have been at it for a while.
  if (idle.length > 0) {
    if (hadTime && (takenOver || supervising.length > 0))
      found('idle', 'passes over queues are claimed, but their work is not done', { queues: idle.slice(0, MOST_NAMED) }, idle.length, idle);
    else unknown.push(`${PREFIX}idle`);
  }

  // Who leaves supervision to the workers does not know what those want who have taken it over.
  if (!takenOver && (await areTurnsTaken(sql, SUPERVISE_TURN, TURNS_END_SECONDS))) unknown.push(`${PREFIX}twice`);
  if (takenOver && supervising.length > 0) {
    const summary = 'instances supervise beside the daemons, and fail live jobs after an outage: set supervise: false on them';
    found('twice', summary, { instances: supervising.slice(0, MOST_NAMED) }, supervising.length);
  }

  let unresolved = 0;
  for (const leaf of await flows.listLeaves(sql)) unresolved += await flows.countUnresolved(sql, leaf, UNRESOLVED_SECONDS, MOST_COUNTED);
  if (unresolved > 0) found('flows', 'completed parents have not been resolved: their children wait', {}, unresolved);
  return { findings, unknown };
}
