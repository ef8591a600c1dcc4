import type { RescueResult } from './actions/rescue.ts';
import type { Context } from './context.ts';
import { SchemaNotReady } from './context.ts';
import { EXECUTOR_KEPT_SECONDS, refreshExecutors } from './executors/health.ts';
import { countVerdicts } from './executors/queries.ts';
import { CUT_OFF_AFTER_SECONDS } from './fleet/beat.ts';
import { readFleetState, saveBrake } from './fleet/queries.ts';
import { countOpen, type Finding, project } from './incidents/incident.ts';
import { countBatch, type Metrics, observeSweep } from './metrics/metrics.ts';
import { coverNewTables, ownershipState } from './ownership/install.ts';
import { rotateOwnership } from './ownership/rotate.ts';
import { type GateState, SUPPORTED_SCHEMAS } from './pgboss/gate.ts';
import { SchemaIsNewer } from './postgres/migrate.ts';
import { brakedExecutors } from './recovery/brake.ts';
import { resolveReleasedHolds } from './recovery/holds.ts';
import { type SweepOptions, type SweepReport, sweep } from './recovery/sweep.ts';
import type { Clock } from './runtime/clock.ts';
import type { Logger } from './runtime/logger.ts';

export interface PassesDependencies {
  context: Context;
  daemonId: string;
  metrics: Metrics;
  clock: Clock;
  log: Logger;
}

/** What the daemon's loops do, and what they know: each pass reads, acts through a feature, and tells metrics and log. */
export function createPasses({ context, daemonId, metrics, clock, log }: PassesDependencies) {
  const { config, database, jobs } = context;
  const dependencies = context.sweepDependencies(daemonId, config.dryRun);
  const state: {
    setup: 'pending' | 'ready' | 'failed';
    detail: string;
    gate: GateState | undefined;
    ownership: 'unknown' | 'installed' | 'missing';
  } = { setup: 'pending', detail: 'starting', gate: undefined, ownership: 'unknown' };
  let restraintsLogged = '';
  let uncoveredSince: number | undefined;

  async function setUp(): Promise<void> {
    try {
      await context.checkSchema();
      state.setup = 'ready';
    } catch (error) {
      state.setup = 'failed';
      state.detail = error instanceof Error ? error.message : String(error);
      if (error instanceof SchemaNotReady || error instanceof SchemaIsNewer) metrics.databaseUp.set(1);
      throw error;
    }
    const gate = await context.probePgBoss();
    if (gate.detail !== state.gate?.detail) log[gate.mode === 'act' ? 'info' : 'warn']({ mode: gate.mode }, gate.detail);
    state.gate = gate;
    metrics.pgbossSchemaVersion.set(gate.schemaVersion ?? 0);
    metrics.pgbossSupported.set(gate.mode === 'act' ? 1 : 0);
    await project(
      database,
      config.node,
      'pgboss_unsupported',
      gate.mode === 'observe'
        ? [
            {
              class: 'pgboss_unsupported',
              fingerprint: 'pgboss_unsupported',
              summary: gate.detail,
              evidence: { schemaVersion: gate.schemaVersion },
            },
          ]
        : [],
    );
  }

  async function runSweep(sweepOptions: SweepOptions): Promise<SweepReport> {
    const startedAt = clock.now();
    // Counted batch by batch: what a sweep took before it broke off has happened. A dry run took nothing.
    const onBatch = config.dryRun ? undefined : (result: RescueResult) => countBatch(metrics, result);
    const report = await sweep(dependencies, { ...sweepOptions, ...(onBatch ? { onBatch } : {}) });
    if (!config.dryRun) observeSweep(metrics, (clock.now() - startedAt) / 1000);
    const { restarted, failed, discarded, held, skipped } = report;
    if (restarted + failed + discarded + held > 0)
      log.info({ restarted, failed, discarded, held, skipped, dryRun: config.dryRun }, config.dryRun ? 'sweep would' : 'sweep');
    return report;
  }

  async function sweepTurn(): Promise<void> {
    const { restraints, fleet } = await runSweep({});
    const now = restraints
      .map(({ reason }) => reason)
      .sort()
      .join(' ');
    if (now !== restraintsLogged)
      log.warn(
        { reasons: now, comeback: fleet.comebackReason },
        now === '' ? 'no silent executor is held back any more' : 'silent executors are held back',
      );
    restraintsLogged = now;
    await resolveReleasedHolds(database, jobs);
  }

  async function executorsTurn(): Promise<void> {
    const executors = await refreshExecutors(database, context.registry);
    await project(
      database,
      config.node,
      'hung_executor',
      executors
        .filter((executor) => executor.verdict === 'hung')
        .map((executor) => ({
          class: 'hung_executor',
          fingerprint: `hung_executor:${executor.id}`,
          summary: `${executor.name ?? executor.id} on ${executor.host}: ${executor.reason}`,
          evidence: { executor: executor.id, host: executor.host, pid: executor.pid, queues: executor.queues },
        })),
    );
    await projectBrake([...brakedExecutors(executors, dependencies.brakes)]);
  }

  /** The brake is the fleet's, whatever the scope of the node that looks. */
  async function projectBrake(executors: readonly string[]): Promise<void> {
    await saveBrake(database, executors.length > 0);
    const finding: Finding = {
      class: 'mass_staleness',
      fingerprint: 'mass_staleness',
      summary: `${executors.length} executors fell silent together without proof of death: none is rescued`,
      evidence: { executors },
    };
    await project(database, config.node, 'mass_staleness', executors.length > 0 ? [finding] : []);
  }

  async function ownershipTurn(): Promise<void> {
    const target = { schema: config.schema, pgbossSchema: context.pgbossSchema };
    if (!config.dryRun) {
      await coverNewTables(database, target);
      await rotateOwnership(database);
    }
  }

  async function readOwnership(): Promise<void> {
    const target = { schema: config.schema, pgbossSchema: context.pgbossSchema };
    const { installed, broken, tables, missing } = await ownershipState(database, target);
    const records = installed && broken === undefined;
    const trouble = installed ? broken : 'it is not installed: run `reclaimd install-ownership`';
    const was = state.ownership;
    state.ownership = records ? 'installed' : 'missing';
    if (state.ownership === 'missing' && was !== 'missing')
      log.warn(`ownership is not recorded, and no new job can be given back: ${trouble}`);
    metrics.ownershipInstalled.set(records ? 1 : 0);
    metrics.ownershipTables.set(tables.length - missing.length);
    uncoveredSince = missing.length === 0 ? undefined : (uncoveredSince ?? clock.now());
    metrics.ownershipLag.set(uncoveredSince === undefined ? 0 : (clock.now() - uncoveredSince) / 1000);
    const finding: Finding = {
      class: 'ownership_missing',
      fingerprint: 'ownership_missing',
      summary: trouble === undefined ? `${missing.length} job tables are not covered yet` : `ownership is not recorded: ${trouble}`,
      evidence: { tables: missing },
    };
    await project(database, config.node, 'ownership_missing', records && missing.length === 0 ? [] : [finding]);
  }

  async function readGauges(): Promise<void> {
    const verdicts = new Map((await countVerdicts(database, EXECUTOR_KEPT_SECONDS)).map((row) => [row.verdict, row.count]));
    for (const verdict of ['alive', 'late', 'missing', 'dead', 'hung', 'stopped', 'unknown'] as const)
      metrics.executors.set({ verdict }, verdicts.get(verdict) ?? 0);
    const fleet = await readFleetState(database, null, null, CUT_OFF_AFTER_SECONDS);
    metrics.brakeActive.set(fleet.braked ? 1 : 0);
    metrics.graceActive.set(fleet.comebackSeconds !== null && fleet.comebackSeconds * 1000 < config.outageGraceMs ? 1 : 0);
    metrics.incidentsOpen.reset();
    for (const row of await countOpen(database)) metrics.incidentsOpen.set({ class: row.class }, row.count);
    if (canSee()) await readOwnership();
  }

  const isReady = () => state.setup === 'ready';
  const canSee = () =>
    isReady() && state.gate !== undefined && state.gate.mode !== 'wait' && (state.gate.schemaVersion ?? 0) >= SUPPORTED_SCHEMAS.oldest;
  const canAct = () => isReady() && state.gate?.mode === 'act';

  return { state, isReady, canSee, canAct, setUp, runSweep, sweepTurn, executorsTurn, ownershipTurn, readGauges };
}
