import { expect, test } from 'vitest';
import type { Recovered } from '../actions/rescue.ts';
import { countBatch, createMetrics, observeSweep } from './metrics.ts';

/** What dashboards and alerts are built on: changing a line here breaks somebody's. */
const CONTRACT = [
  'reclaimd_archived_rows_total counter class',
  'reclaimd_brake_active gauge',
  'reclaimd_build_info gauge version node_version',
  'reclaimd_claims_total counter result',
  'reclaimd_database_up gauge',
  'reclaimd_deaths_total counter proof',
  'reclaimd_detection_seconds histogram proof',
  'reclaimd_executors gauge verdict',
  'reclaimd_flow_actions_total counter action',
  'reclaimd_flows_stuck gauge',
  'reclaimd_grace_active gauge',
  'reclaimd_heal_breakers_open gauge',
  'reclaimd_heal_duration_seconds histogram',
  'reclaimd_heals_total counter outcome',
  'reclaimd_incidents_open gauge class severity',
  'reclaimd_incidents_opened_total counter class severity',
  'reclaimd_incidents_resolved_total counter class severity',
  'reclaimd_loop_duration_seconds histogram loop',
  'reclaimd_loop_runs_total counter loop result',
  'reclaimd_node_conflicts_total counter',
  'reclaimd_orphans_found_total counter verdict',
  'reclaimd_ownership_installed gauge',
  'reclaimd_ownership_lag_seconds gauge',
  'reclaimd_ownership_tables gauge',
  'reclaimd_pgboss_schema_version gauge',
  'reclaimd_pgboss_supported gauge',
  'reclaimd_policy_errors_total counter',
  'reclaimd_pruned_rows_total counter class',
  'reclaimd_recoveries_total counter policy outcome',
  'reclaimd_retained_bytes gauge class',
  'reclaimd_retained_rows gauge class',
  'reclaimd_retention_due_rows gauge class',
  'reclaimd_retention_last_run_timestamp_seconds gauge',
  'reclaimd_retention_last_success_timestamp_seconds gauge',
  'reclaimd_retention_next_run_timestamp_seconds gauge',
  'reclaimd_retention_oldest_timestamp_seconds gauge class',
  'reclaimd_steps_replayed_total counter',
  'reclaimd_supervision_held gauge',
  'reclaimd_sweep_duration_seconds histogram',
  'reclaimd_sweep_last_success_timestamp_seconds gauge',
  'reclaimd_systemd_connected gauge',
  'reclaimd_unit_crashes_total counter result',
  'reclaimd_units gauge condition',
  'reclaimd_units_flapping gauge',
  'reclaimd_units_last_success_timestamp_seconds gauge',
];

test('names, types and labels are the contract, and each metric says what it means', () => {
  const { registry } = createMetrics();
  const own = registry.getMetricsAsArray().filter(({ name }) => name.startsWith('reclaimd_'));
  const described = own.map((metric) => [metric.name, metric.type, ...labelsOf(metric)].join(' ').trim());
  expect(described.toSorted()).toEqual(CONTRACT);
  for (const { help } of own) expect(help).toMatch(/^[A-Z].*\.$/);
});

test("Node's own metrics are there, and two registries do not meet", async () => {
  const first = createMetrics();
  const second = createMetrics();
  first.nodeConflicts.inc();
  expect(await first.registry.metrics()).toContain('nodejs_eventloop_lag_seconds');
  expect(await first.registry.metrics()).toContain('process_resident_memory_bytes');
  expect(await first.registry.metrics()).toContain('reclaimd_node_conflicts_total 1');
  expect(await second.registry.metrics()).toContain('reclaimd_node_conflicts_total 0');
});

test('an event that has not happened yet reads 0, so that its first one has a rate', async () => {
  const text = await createMetrics().registry.metrics();
  expect(text).toContain('reclaimd_claims_total{result="lost"} 0');
  expect(text).toContain('reclaimd_deaths_total{proof="process_gone"} 0');
  expect(text).toContain('reclaimd_orphans_found_total{verdict="missing"} 0');
  expect(text).toContain('reclaimd_recoveries_total{policy="fail",outcome="failed"} 0');
});

const ORPHAN: Recovered = {
  queue: 'mail',
  jobId: '00000000-0000-0000-0000-000000000001',
  retryCount: 0,
  startedOn: '2026-01-01 00:00:00+00',
  executorId: 'e1',
  verdict: 'dead',
  proof: 'process_gone',
  reason: 'its process is gone',
  lastAliveAt: null,
  resolved: { policy: 'fail', source: 'default', maxRecoveries: 3, poison: 'discard' },
  policy: 'fail',
  outcome: 'failed',
  poison: false,
  recoveriesBefore: 0,
  detectionSeconds: 0.2,
};

test.each([
  ['a proof', {}, 'process_gone'],
  ['a graceful stop', { proof: null, verdict: 'stopped' }, 'stopped'],
  ['silence', { proof: null, verdict: 'missing' }, 'timeout'],
  ["the job's own silence", { proof: null, verdict: 'unknown', staleSeconds: 60 }, 'stale'],
] as const)('a detection by %s is counted as such', async (_, orphan, proof) => {
  const metrics = createMetrics();
  countBatch(metrics, { recovered: [{ ...ORPHAN, ...orphan }], skipped: 2 });
  observeSweep(metrics, 0.01);
  const text = await metrics.registry.metrics();
  expect(text).toContain(`reclaimd_detection_seconds_count{proof="${proof}"} 1`);
  expect(text).toContain('reclaimd_claims_total{result="won"} 1');
  expect(text).toContain('reclaimd_claims_total{result="lost"} 2');
  expect(text).toContain('reclaimd_sweep_duration_seconds_count 1');
  expect(text).not.toContain('reclaimd_sweep_last_success_timestamp_seconds 0');
});

test('what a sweep took before it broke off is counted, but it is no success', async () => {
  const metrics = createMetrics();
  countBatch(metrics, { recovered: [ORPHAN], skipped: 0 });
  const text = await metrics.registry.metrics();
  expect(text).toContain('reclaimd_recoveries_total{policy="fail",outcome="failed"} 1');
  expect(text).toContain('reclaimd_sweep_last_success_timestamp_seconds 0');
});

test('neither ids nor queues become labels', async () => {
  const metrics = createMetrics();
  countBatch(metrics, { recovered: [ORPHAN], skipped: 0 });
  const text = await metrics.registry.metrics();
  for (const secret of [ORPHAN.queue, ORPHAN.jobId, ORPHAN.executorId, ORPHAN.reason]) expect(text).not.toContain(`"${secret}"`);
});

/** prom-client knows a metric's labels, but does not say so in its types. */
function labelsOf(metric: object): string[] {
  return [...(metric as { labelNames: string[] }).labelNames].filter((label) => label !== 'le');
}
