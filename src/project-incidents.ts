import type { Context } from './context.ts';
import { refreshExecutors } from './executors/health.ts';
import type { SharedName } from './executors/queries.ts';
import { describeSharedName, findSharedNames } from './executors/shared-names.ts';
import { CUT_OFF_AFTER_SECONDS } from './fleet/beat.ts';
import { type FleetState, readFleetState } from './fleet/queries.ts';
import { type Finding, type IncidentChanges, project, readLookTime } from './incidents/incident.ts';
import { projectSilentNodes } from './incidents/supervision.ts';
import { resolveUnattended } from './incidents/unattended.ts';
import { type OwnershipState, ownershipState } from './ownership/install.ts';
import { type GateState, SUPPORTED_SCHEMAS } from './pgboss/gate.ts';
import { type Look, projectDeadExecutors } from './recovery/dead-executors.ts';
import { resolveReleasedHolds } from './recovery/holds.ts';
import { projectHungExecutors } from './recovery/hung-executors.ts';
import { projectMassStaleness } from './recovery/mass-staleness.ts';
import { resolveMovedPoison } from './recovery/poison.ts';
import { projectSupervision } from './supervision/watch.ts';

/** That the evidence names; the count is exact. */
const NAMED_EXECUTORS = 50;

/**
 * Brings the incidents whose condition is in the database up to date: opens what is wrong now, resolves what is not any
 * more. Safe with any number of callers at once; writes only changes. Each class is looked at by itself: where one look
 * fails the others go on, and the failures come as one AggregateError.
 * @param daemonId of the daemon that asks; null for everybody else, who has no beat of its own.
 */
export async function projectIncidents(context: Context, daemonId: string | null = null): Promise<IncidentChanges> {
  const { config, database, jobs, flows, supervision, registry, pgbossSchema } = context;
  const { node } = config;
  const gate = await context.probePgBoss();
  const looks: (() => Promise<IncidentChanges>)[] = [() => projectGate(context, gate), () => resolveUnattended(database)];
  if (gate.mode !== 'wait' && (gate.schemaVersion ?? 0) >= SUPPORTED_SCHEMAS.oldest) {
    const lookedAt = await readLookTime(database);
    const executors = await refreshExecutors(database, registry);
    const fleet = await readFleetState(database, daemonId === null ? null : node, daemonId, CUT_OFF_AFTER_SECONDS);
    const { brakes } = context.sweepDependencies(daemonId, true);
    // Who is no daemon has not begun just now.
    const ofAge = (state: FleetState) => (daemonId === null ? { ...state, daemonAgeSeconds: Number.POSITIVE_INFINITY } : state);
    const look: Look = { jobs, executors, fleet, brakes, lookedAt };
    // Whoever asks from outside of the fleet's beats sees the database now: that the nodes are silent is what it looks for.
    const watched = daemonId === null ? { ...fleet, ownBeatFresh: true } : fleet;
    looks.push(
      () => projectHungExecutors(database, node, look),
      () => projectMassStaleness(database, node, look),
      () => projectDeadExecutors(database, node, look),
      () => projectSilentNodes(database, node, watched),
      () => projectSupervision(database, node, ofAge(watched), { supervision, flows, takenOver: config.pgbossSupervise, ...brakes }),
      () => resolveReleasedHolds(database, jobs),
      () => resolveMovedPoison(database, jobs, flows),
      async () => projectOwnership(context, await ownershipState(database, { schema: config.schema, pgbossSchema }), lookedAt),
    );
  }
  const changes: IncidentChanges = { opened: [], resolved: [] };
  const failures: unknown[] = [];
  for (const take of looks) {
    try {
      const { opened, resolved } = await take();
      changes.opened.push(...opened);
      changes.resolved.push(...resolved);
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, `${failures.length} looks for incidents failed: ${String(failures[0])}`);
  return changes;
}

/** Each node has a pg-boss client of its own: what one cannot serve, another may. */
export function projectGate({ config, database }: Context, gate: GateState): Promise<IncidentChanges> {
  const { schemaVersion, detail } = gate;
  const fingerprint = `pgboss_unsupported:${config.node}`;
  const finding = { class: 'pgboss_unsupported', fingerprint, summary: detail, evidence: { schemaVersion } } as const;
  return project(database, config.node, 'pgboss_unsupported', gate.mode === 'observe' ? [finding] : []);
}

/** Tables whose attempts have no recorded owner, and names that do not say whose an attempt is. */
export async function projectOwnership(
  { config, database }: Context,
  ownership: OwnershipState,
  lookedAt: string,
): Promise<IncidentChanges> {
  const { missing } = ownership;
  const trouble = ownershipTrouble(ownership);
  const findings = (await findSharedNames(database)).map(intoFinding);
  if (trouble !== undefined || missing.length > 0)
    findings.push({
      class: 'ownership_missing',
      fingerprint: 'ownership_missing',
      summary: trouble === undefined ? `${missing.length} job tables are not covered yet` : `ownership is not recorded: ${trouble}`,
      evidence: { tables: missing },
      affected: Math.max(1, missing.length),
    });
  return project(database, config.node, { class: 'ownership_missing', lookedAt }, findings);
}

function intoFinding(shared: SharedName): Finding {
  const { name, executors, queues } = shared;
  return {
    class: 'ownership_missing',
    fingerprint: `ownership_missing:name:${name}`,
    summary: describeSharedName(shared),
    evidence: { applicationName: name, executors: executors.slice(0, NAMED_EXECUTORS) },
    affected: executors.length,
    queues,
  };
}

/** Why no owner is recorded at all; undefined where it is. */
export function ownershipTrouble({ installed, broken }: OwnershipState): string | undefined {
  return installed ? broken : 'it is not installed: run `reclaimd install-ownership`';
}
