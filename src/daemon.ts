import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { hostname } from 'node:os';
import type { RescueResult } from './actions/rescue.ts';
import { endTurn, takeTurn } from './claims/turn.ts';
import type { Config } from './config.ts';
import { openContext, SchemaNotReady } from './context.ts';
import { createAdoption } from './executors/adoption.ts';
import { EXECUTOR_KEPT_SECONDS, refreshExecutors } from './executors/health.ts';
import { countVerdicts } from './executors/queries.ts';
import type { Proof } from './executors/verdict.ts';
import { BEAT_INTERVAL_MS, createBeat } from './fleet/beat.ts';
import { type FleetState, type NodeIdentity, saveBrake, saveNodeStop } from './fleet/queries.ts';
import { isPidAmbiguous, openProcess, readBootId, readPidNamespace, secondsSinceBoot } from './host/process.ts';
import { startHttpServer } from './http/server.ts';
import { countOpen, project } from './incidents/incident.ts';
import { countBatch, createMetrics, observeSweep } from './metrics/metrics.ts';
import { coverNewTables, ownershipState } from './ownership/install.ts';
import { rotateOwnership } from './ownership/rotate.ts';
import type { GateState } from './pgboss/gate.ts';
import { SchemaIsNewer } from './postgres/migrate.ts';
import { resolveReleasedHolds } from './recovery/holds.ts';
import type { ResolvePolicy } from './recovery/policy.ts';
import { type SweepReport, sweep } from './recovery/sweep.ts';
import { type Clock, systemClock } from './runtime/clock.ts';
import { createLogger, errorFields, type Logger } from './runtime/logger.ts';
import { type Loop, type LoopDefinition, type PassResult, startLoop } from './runtime/loop.ts';

export interface DaemonOptions {
  /** The server to use when it is not `config.databaseUrl`: an embedded one. */
  databaseUrl?: string;
  log?: Logger;
  clock?: Clock;
  resolvePolicy?: ResolvePolicy | undefined;
}

export interface Daemon {
  /** Where /metrics and the health pages are; undefined when RECLAIMD_LISTEN is `off`. */
  readonly url: string | undefined;
  /** Ends the loops, says goodbye to the fleet and closes every connection; within seconds. */
  stop(): Promise<void>;
}

const SETUP_INTERVAL_MS = 5_000;
const ADOPT_INTERVAL_MS = 1_000;
/** A death is noticed within this time, for one small read an executor. */
const WATCH_INTERVAL_MS = 50;
const EXECUTORS_INTERVAL_MS = 2_000;
const OWNERSHIP_INTERVAL_MS = 10_000;
const GAUGES_INTERVAL_MS = 10_000;
/** Only what a failed sweep left; a death wakes the loop at once. */
const NOTICE_FALLBACK_MS = 1_000;
/** The node that proved a death acts first; the others come after, should it die meanwhile. */
const HEARD_DELAY_MS = 500;
const STOP_LIMIT_MS = 8_000;
const FIRST_SETUP_LIMIT_MS = 3_000;

const { version } = createRequire(import.meta.url)('../package.json') as { version: string };

/** Composition root: builds the adapters, starts the loops in order, stops them in the reverse. */
export async function createDaemon(config: Config, options: DaemonOptions = {}): Promise<Daemon> {
  const clock = options.clock ?? systemClock;
  const log = options.log ?? createLogger(config.logLevel, config.node);
  const metrics = createMetrics();
  const context = openContext({
    config,
    clock,
    log,
    databaseUrl: options.databaseUrl ?? config.databaseUrl,
    role: 'daemon',
    resolvePolicy: options.resolvePolicy,
    onPolicyError: (error) => {
      metrics.policyErrors.inc();
      log.error(errorFields(error), 'resolvePolicy failed; the lists decide');
    },
  });
  const { database, jobs } = context;
  const identity: NodeIdentity = {
    node: config.node,
    daemonId: randomUUID(),
    host: hostname(),
    pid: process.pid,
    version,
    bootId: readBootId() ?? null,
    stack: config.stack ?? null,
    env: config.env ?? null,
  };
  const state: {
    setup: 'pending' | 'ready' | 'failed';
    detail: string;
    gate: GateState | undefined;
    ownership: 'unknown' | 'installed' | 'missing';
    databaseUp: boolean;
  } = {
    setup: 'pending',
    detail: 'starting',
    gate: undefined,
    ownership: 'unknown',
    databaseUp: false,
  };
  const dependencies = context.sweepDependencies(identity.daemonId, config.dryRun);
  const pendingDeaths = new Set<string>();
  const stopping = new AbortController();

  metrics.buildInfo.set({ version, node_version: process.version }, 1);

  const beat = createBeat({ identity, log, onNodeConflict: () => metrics.nodeConflicts.inc() });
  const adoption = createAdoption({
    database,
    clock,
    log,
    registry: context.registry,
    processes: {
      bootId: identity.bootId ?? undefined,
      pidNamespace: readPidNamespace(),
      secondsSinceBoot,
      open: openProcess,
      isPidAmbiguous,
    },
    host: identity.host,
    node: config.node,
    stack: identity.stack,
    env: identity.env,
    onDeath: (executorId: string, proof: Proof) => {
      metrics.deaths.inc({ proof });
      noticeDeath(executorId);
    },
  });

  function noticeDeath(executorId: string): void {
    pendingDeaths.add(executorId);
    loops.find((loop) => loop.name === 'deaths')?.wake();
  }

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

  async function sweepDeaths(): Promise<void> {
    const executorIds = [...pendingDeaths];
    if (executorIds.length === 0) return;
    await runSweep({ executorIds });
    for (const id of executorIds) pendingDeaths.delete(id);
  }

  async function runSweep(sweepOptions: { executorIds?: readonly string[] }): Promise<SweepReport> {
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
    const report = await runSweep({});
    noteRestraints(
      report.restraints.map((restraint) => restraint.reason),
      report.fleet,
    );
    const massFailure = report.restraints.find((restraint) => restraint.reason === 'mass_failure');
    await saveBrake(database, massFailure !== undefined);
    await project(
      database,
      config.node,
      'mass_staleness',
      massFailure
        ? [
            {
              class: 'mass_staleness',
              fingerprint: 'mass_staleness',
              summary: `${massFailure.executors.length} executors fell silent together without proof of death: none is rescued`,
              evidence: { executors: massFailure.executors },
            },
          ]
        : [],
    );
    await resolveReleasedHolds(database, jobs);
  }

  let restraintsLogged = '';
  function noteRestraints(reasons: readonly string[], fleet: FleetState): void {
    metrics.brakeActive.set(reasons.includes('mass_failure') ? 1 : 0);
    metrics.graceActive.set(fleet.comebackSeconds !== null && fleet.comebackSeconds * 1000 < config.outageGraceMs ? 1 : 0);
    const now = [...reasons].sort().join(' ');
    if (now !== restraintsLogged)
      log.warn(
        { reasons, comeback: fleet.comebackReason },
        now === '' ? 'no silent executor is held back any more' : 'silent executors are held back',
      );
    restraintsLogged = now;
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
  }

  async function ownershipTurn(): Promise<void> {
    const target = { schema: config.schema, pgbossSchema: context.pgbossSchema };
    if (!config.dryRun) {
      await coverNewTables(database, target);
      await rotateOwnership(database);
    }
  }

  async function readOwnership(): Promise<void> {
    const { installed, tables, missing } = await ownershipState(database, { schema: config.schema, pgbossSchema: context.pgbossSchema });
    const was = state.ownership;
    state.ownership = installed ? 'installed' : 'missing';
    if (state.ownership === 'missing' && was !== 'missing')
      log.warn('ownership is not recorded: run `reclaimd install-ownership`; until then no job can be given back');
    metrics.ownershipInstalled.set(installed ? 1 : 0);
    metrics.ownershipTables.set(tables.length - missing.length);
    uncoveredSince = missing.length === 0 ? undefined : (uncoveredSince ?? clock.now());
    metrics.ownershipLag.set(uncoveredSince === undefined ? 0 : (clock.now() - uncoveredSince) / 1000);
    await project(
      database,
      config.node,
      'ownership_missing',
      missing.length === 0
        ? []
        : [
            {
              class: 'ownership_missing',
              fingerprint: 'ownership_missing',
              summary: installed ? `${missing.length} job tables are not covered yet` : 'ownership is not installed',
              evidence: { tables: missing },
            },
          ],
    );
  }
  let uncoveredSince: number | undefined;

  async function readGauges(): Promise<void> {
    const verdicts = new Map((await countVerdicts(database, EXECUTOR_KEPT_SECONDS)).map((row) => [row.verdict, row.count]));
    for (const verdict of ['alive', 'late', 'missing', 'dead', 'hung', 'stopped', 'unknown'] as const)
      metrics.executors.set({ verdict }, verdicts.get(verdict) ?? 0);
    metrics.incidentsOpen.reset();
    for (const row of await countOpen(database)) metrics.incidentsOpen.set({ class: row.class }, row.count);
    if (canSee()) await readOwnership();
  }

  const isReady = () => state.setup === 'ready';
  const canSee = () => isReady() && state.gate !== undefined && state.gate.mode !== 'wait' && (state.gate.schemaVersion ?? 0) >= 44;
  const canAct = () => isReady() && state.gate?.mode === 'act';

  /** A pass that waits for its condition, looking again at its own pace. */
  const when = (condition: () => boolean, pass: () => Promise<PassResult> | Promise<void>) => async (): Promise<PassResult> =>
    condition() ? ((await pass()) ?? undefined) : undefined;

  /** A pass that one node of the fleet runs at a time. */
  const turn = (name: string, intervalMs: number, pass: () => Promise<void>) => async (): Promise<PassResult> => {
    const taken = await takeTurn(database, name, intervalMs, identity.daemonId);
    if (!taken.mine) return { againInMs: taken.againInMs };
    try {
      await pass();
    } finally {
      await endTurn(database, name, identity.daemonId).catch(() => undefined);
    }
    return undefined;
  };

  const definitions: LoopDefinition[] = [
    { name: 'setup', intervalMs: SETUP_INTERVAL_MS, pass: setUp },
    { name: 'beat', intervalMs: BEAT_INTERVAL_MS, jitter: 0, pass: when(isReady, () => beat(database)) },
    { name: 'adopt', intervalMs: ADOPT_INTERVAL_MS, pass: when(canSee, adoption.adopt) },
    { name: 'watch', intervalMs: WATCH_INTERVAL_MS, jitter: 0, pass: adoption.watch },
    { name: 'deaths', intervalMs: NOTICE_FALLBACK_MS, pass: when(canAct, sweepDeaths) },
    { name: 'executors', intervalMs: EXECUTORS_INTERVAL_MS, pass: when(canSee, turn('executors', EXECUTORS_INTERVAL_MS, executorsTurn)) },
    { name: 'sweep', intervalMs: config.sweepIntervalMs, pass: when(canAct, turn('sweep', config.sweepIntervalMs, sweepTurn)) },
    { name: 'ownership', intervalMs: OWNERSHIP_INTERVAL_MS, pass: when(canAct, turn('ownership', OWNERSHIP_INTERVAL_MS, ownershipTurn)) },
    { name: 'gauges', intervalMs: GAUGES_INTERVAL_MS, pass: when(isReady, readGauges) },
  ];

  const firstSetup = Promise.withResolvers<void>();
  const loops: Loop[] = [];
  const server =
    config.listen === 'off'
      ? undefined
      : await startHttpServer({ listen: config.listen, registry: metrics.registry, livez, readyz }, { log });

  for (const definition of definitions) {
    loops.push(startLoop(definition, { clock, log, observe: observeLoop }));
    // The others begin once the first look at the database is over, whatever it said.
    if (definition.name === 'setup') await within(FIRST_SETUP_LIMIT_MS, firstSetup.promise);
  }
  const listener = database.listen(`${config.schema}_death`, (executorId) => {
    if (pendingDeaths.has(executorId)) return;
    void clock.sleep(HEARD_DELAY_MS * (1 + Math.random()), stopping.signal).then(() => noticeDeath(executorId));
  });
  log.info({ version, pgboss: context.release.version, dryRun: config.dryRun, url: server?.url }, 'reclaimd runs');

  /** Waits for `work`, but no longer; a timer left behind would keep a process alive that has nothing more to do. */
  async function within(limitMs: number, work: Promise<void>): Promise<void> {
    const over = new AbortController();
    await Promise.race([work, clock.sleep(limitMs, over.signal)]).finally(() => over.abort());
  }

  function observeLoop(loop: string, seconds: number, error: unknown): void {
    metrics.loopRuns.inc({ loop, result: error === undefined ? 'ok' : 'error' });
    metrics.loopDuration.observe({ loop }, seconds);
    if (loop === 'setup') {
      firstSetup.resolve();
      state.databaseUp = error === undefined || error instanceof SchemaNotReady || error instanceof SchemaIsNewer;
      metrics.databaseUp.set(state.databaseUp ? 1 : 0);
    }
  }

  function livez() {
    const stalled = loops.filter((loop) => {
      const { turnedAt, silenceLimitMs } = loop.progress();
      return clock.now() - turnedAt > silenceLimitMs;
    });
    return { ok: stalled.length === 0, detail: { stalled: stalled.map((loop) => loop.name) } };
  }

  function readyz() {
    const ok = state.databaseUp && canAct() && state.ownership === 'installed';
    return {
      ok,
      detail: {
        database: state.databaseUp ? 'up' : 'down',
        schema: isReady() ? 'ready' : state.detail,
        pgboss: state.gate?.detail ?? 'not probed yet',
        ownership: state.ownership,
        dryRun: config.dryRun,
      },
    };
  }

  async function stopEverything(): Promise<void> {
    stopping.abort();
    await Promise.all([listener.stop(), ...loops.map((loop) => loop.stop())]);
    adoption.close();
    if (isReady())
      await saveNodeStop(database, config.node, identity.daemonId).catch((error: unknown) =>
        log.warn(errorFields(error), 'could not say goodbye'),
      );
    await context.close();
  }

  return {
    url: server?.url,
    stop: async () => {
      log.info('stopping');
      await within(STOP_LIMIT_MS, stopEverything());
      await server?.close();
      log.info('stopped');
    },
  };
}
