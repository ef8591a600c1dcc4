import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Policy } from '../actions/limits.ts';
import type { Outcome, Recovered, RescueResult } from '../actions/rescue.ts';
import type { Proof, Verdict } from '../executors/verdict.ts';
import { INCIDENT_CLASSES, severityOf } from '../incidents/class.ts';
import type { IncidentChanges } from '../incidents/incident.ts';

/** From a dead process noticed at once to pg-boss's own defaults. */
const DETECTION_BUCKETS = [0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const DURATION_BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60];
/** What each policy comes to; a restart that its queue's policy has no room for fails. */
const RECOVERIES = [
  ['restart', 'restarted'],
  ['restart', 'failed'],
  ['fail', 'failed'],
  ['discard', 'discarded'],
  ['hold', 'held'],
] as const satisfies readonly [Policy, Outcome][];

export type Metrics = ReturnType<typeof createMetrics>;

/** Every metric's definition. Labels are bounded: never an id, a queue, a reason. */
export function createMetrics() {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const counter = <Label extends string>(name: string, help: string, ...labelNames: Label[]) =>
    new Counter({ name: `reclaimd_${name}`, help, labelNames, registers });
  const gauge = <Label extends string>(name: string, help: string, ...labelNames: Label[]) =>
    new Gauge({ name: `reclaimd_${name}`, help, labelNames, registers });
  const histogram = <Label extends string>(name: string, help: string, buckets: number[], ...labelNames: Label[]) =>
    new Histogram({ name: `reclaimd_${name}`, help, buckets, labelNames, registers });
  const metrics = {
    registry,
    buildInfo: gauge('build_info', 'Version of reclaimd and of Node; always 1.', 'version', 'node_version'),
    databaseUp: gauge('database_up', 'Whether the database answered the last look.'),
    pgbossSchemaVersion: gauge('pgboss_schema_version', "Version of pg-boss's schema; 0 when it is not installed."),
    pgbossSupported: gauge('pgboss_supported', "Whether pg-boss's schema is one that this daemon may act on."),
    executors: gauge('executors', 'Executors in view, by verdict.', 'verdict'),
    deaths: counter('deaths_total', 'Deaths that this node proved.', 'proof'),
    orphansFound: counter('orphans_found_total', 'Orphans that sweeps of this node took up, by the verdict on their executor.', 'verdict'),
    detectionSeconds: histogram(
      'detection_seconds',
      'From the last sign of life of an executor to its job being given back.',
      DETECTION_BUCKETS,
      'proof',
    ),
    recoveries: counter('recoveries_total', 'Attempts taken from executors, by policy and outcome.', 'policy', 'outcome'),
    claims: counter('claims_total', 'Orphans that this node claimed, or that another had or had moved on.', 'result'),
    sweepDuration: histogram('sweep_duration_seconds', 'Duration of sweeps.', DURATION_BUCKETS),
    sweepLastSuccess: gauge('sweep_last_success_timestamp_seconds', 'When this node last finished a sweep.'),
    brakeActive: gauge('brake_active', 'Whether the mass-failure brake held in the last sweep of this node.'),
    graceActive: gauge('grace_active', 'Whether silence counted for nothing, after an outage, in the last sweep of this node.'),
    ownershipInstalled: gauge('ownership_installed', 'Whether ownership is recorded.'),
    ownershipTables: gauge('ownership_tables', 'Job tables whose attempts have a recorded owner.'),
    ownershipLag: gauge('ownership_lag_seconds', 'For how long some job table has been without the ownership trigger; 0 when none is.'),
    loopRuns: counter('loop_runs_total', 'Passes of each loop.', 'loop', 'result'),
    loopDuration: histogram('loop_duration_seconds', 'Duration of passes of each loop.', DURATION_BUCKETS, 'loop'),
    policyErrors: counter('policy_errors_total', 'Failures of the policy function; the lists decided instead.'),
    nodeConflicts: counter('node_conflicts_total', "Beats of another daemon under this node's name."),
    retainedRows: gauge('retained_rows', 'Rows of each class of records, at the last look.', 'class'),
    retentionDue: gauge('retention_due_rows', 'Rows of each class that are due to be pruned, at the last look.', 'class'),
    retainedBytes: gauge('retained_bytes', 'Size of each class of records with its indexes, at the last look.', 'class'),
    retentionOldest: gauge(
      'retention_oldest_timestamp_seconds',
      'When the oldest row of each class became history, at the last look; 0 where there is none.',
      'class',
    ),
    retentionLastRun: gauge('retention_last_run_timestamp_seconds', 'When the last run of retention in the fleet ended.'),
    retentionLastSuccess: gauge(
      'retention_last_success_timestamp_seconds',
      'When the last run of retention that this node knows of ended without an error.',
    ),
    retentionNextRun: gauge('retention_next_run_timestamp_seconds', 'When the schedule of this node is next due.'),
    pruned: counter('pruned_rows_total', 'Rows that this node pruned.', 'class'),
    archived: counter('archived_rows_total', 'Rows that this node archived before it pruned them.', 'class'),
    systemdConnected: gauge('systemd_connected', 'Whether the service manager of this host can be asked; 0 where there is none.'),
    units: gauge('units', 'Units of the allowlist on this host, by what is wrong with them.', 'condition'),
    unitsFlapping: gauge('units_flapping', 'Units of the allowlist on this host that restart too often.'),
    unitsLastSeen: gauge('units_last_success_timestamp_seconds', 'When this node last enumerated its units.'),
    breakersOpen: gauge('heal_breakers_open', 'Units of this host that are not healed any more until a person or a quiet period comes.'),
    heals: counter('heals_total', 'Heals that this daemon did by itself, by outcome.', 'outcome'),
    healDuration: histogram(
      'heal_duration_seconds',
      'From the decision to heal until the unit had settled, or had failed.',
      DURATION_BUCKETS,
    ),
    unitCrashes: counter('unit_crashes_total', 'Executors of this host that died with their unit, by how it ended.', 'result'),
    flowsStuck: gauge('flows_stuck', 'Parents behind which flows are stuck, as of the last look of this node.'),
    flowActions: counter(
      'flow_actions_total',
      'What this node did about flows by itself: parents resolved or retried, jobs cancelled.',
      'action',
    ),
    stepsReplayed: counter('steps_replayed_total', 'Events of workflow steps that this node emitted again.'),
    supervisionHeld: gauge('supervision_held', "Whether this node's last pass of pg-boss's supervision was held back, after an outage."),
    incidentsOpen: gauge('incidents_open', 'Open incidents of the fleet, by class.', 'class', 'severity'),
    incidentsOpened: counter('incidents_opened_total', 'Incidents that this node opened or reopened, by class.', 'class', 'severity'),
    incidentsResolved: counter('incidents_resolved_total', 'Incidents whose condition this node saw gone, by class.', 'class', 'severity'),
  };
  // A series that first appears with its first event has no rate for that event: those that alerts stand on begin at 0.
  for (const proof of ['process_gone', 'host_rebooted'] as const satisfies readonly Proof[]) metrics.deaths.inc({ proof }, 0);
  for (const result of ['won', 'lost']) metrics.claims.inc({ result }, 0);
  for (const verdict of ['dead', 'stopped', 'missing', 'unknown'] as const satisfies readonly Verdict[])
    metrics.orphansFound.inc({ verdict }, 0);
  for (const outcome of ['healed', 'failed'] as const) metrics.heals.inc({ outcome }, 0);
  for (const [policy, outcome] of RECOVERIES) metrics.recoveries.inc({ policy, outcome }, 0);
  for (const name of INCIDENT_CLASSES) {
    metrics.incidentsOpened.inc({ class: name, severity: severityOf(name) }, 0);
    metrics.incidentsResolved.inc({ class: name, severity: severityOf(name) }, 0);
  }
  return metrics;
}

export function countIncidents(metrics: Metrics, { opened, resolved }: IncidentChanges): void {
  for (const { class: name, count } of opened) metrics.incidentsOpened.inc({ class: name, severity: severityOf(name) }, count);
  for (const { class: name, count } of resolved) metrics.incidentsResolved.inc({ class: name, severity: severityOf(name) }, count);
}

/** A sweep that got to its end. */
export function observeSweep(metrics: Metrics, seconds: number): void {
  metrics.sweepDuration.observe(seconds);
  metrics.sweepLastSuccess.setToCurrentTime();
}

/** Counts what one committed batch took, whether or not its sweep gets to its end. */
export function countBatch(metrics: Metrics, { recovered, skipped }: RescueResult): void {
  metrics.claims.inc({ result: 'won' }, recovered.length);
  metrics.claims.inc({ result: 'lost' }, skipped);
  for (const orphan of recovered) {
    metrics.orphansFound.inc({ verdict: orphan.verdict });
    metrics.recoveries.inc({ policy: orphan.policy, outcome: orphan.outcome });
    if (orphan.detectionSeconds !== null && orphan.outcome !== 'held')
      metrics.detectionSeconds.observe({ proof: evidenceOf(orphan) }, orphan.detectionSeconds);
  }
}

function evidenceOf({ proof, staleSeconds, verdict }: Recovered): string {
  if (proof !== null) return proof;
  if (staleSeconds !== undefined) return 'stale';
  return verdict === 'stopped' ? 'stopped' : 'timeout';
}

/** How a unit can end, by systemd (systemd.service(5), EXIT_STATUS); labels are a bounded set, whatever a later release adds. */
const UNIT_RESULTS: ReadonlySet<string> = new Set([
  'success',
  'protocol',
  'timeout',
  'exit-code',
  'signal',
  'core-dump',
  'watchdog',
  'start-limit-hit',
  'oom-kill',
  'resources',
  'unknown',
]);

export const labelOfResult = (result: string): string => (UNIT_RESULTS.has(result) ? result : 'other');
