import { appendAudit } from './audit/append.ts';
import { sealAudit } from './audit/chain.ts';
import type { Context } from './context.ts';
import { SchemaNotReady } from './context.ts';
import { EXECUTOR_KEPT_SECONDS, refreshExecutors } from './executors/health.ts';
import { countVerdicts, maySeeSessions } from './executors/queries.ts';
import { CUT_OFF_AFTER_SECONDS } from './fleet/beat.ts';
import { readFleetState } from './fleet/queries.ts';
import { INCIDENT_CLASSES, severityOf } from './incidents/class.ts';
import { type IncidentChanges, readLookTime } from './incidents/incident.ts';
import { countOpen } from './incidents/listing.ts';
import { resolveUnits } from './incidents/unattended.ts';
import { countBatch, countIncidents, type Metrics, observeSweep } from './metrics/metrics.ts';
import { coverNewTables, ownershipState } from './ownership/install.ts';
import { rotateOwnership } from './ownership/rotate.ts';
import { type GateState, hasRegistry } from './pgboss/gate.ts';
import { SchemaIsNewer } from './postgres/migrate.ts';
import { ownershipTrouble, projectGate, projectIncidents, projectOwnership } from './project-incidents.ts';
import { resolveReleasedHolds } from './recovery/holds.ts';
import { projectHungExecutors } from './recovery/hung-executors.ts';
import { projectMassStaleness } from './recovery/mass-staleness.ts';
import { type SweepOptions, type SweepReport, type SweptBatch, sweep } from './recovery/sweep.ts';
import { projectBehind } from './retention/behind.ts';
import { runArchivePrune } from './retention/prune.ts';
import { retentionStatus } from './retention/status.ts';
import { forgetOutOfReach, tidyArchive } from './retention/tidy.ts';
import type { Clock } from './runtime/clock.ts';
import type { Logger } from './runtime/logger.ts';
import type { PassResult } from './runtime/loop.ts';
import { superviseOnce } from './supervision/take-over.ts';
import type { Place } from './workflows/queries.ts';
import { projectExhaustedSteps, reconcileWorkflows } from './workflows/reconcile.ts';
import { settleFlows } from './workflows/stuck-flows.ts';

export interface PassesDependencies {
  context: Context;
  daemonId: string;
  /** This daemon's last beat failed: it was cut off, and the database does not know it yet. */
  hasBeatFailed(): boolean;
  metrics: Metrics;
  clock: Clock;
  log: Logger;
}

/** Of 2,000 steps each: more steps than these are looked at in several turns. */
const PAGES_A_TURN = 25;
/** Well within the time after which a loop counts as stuck. */
const SUPERVISE_WAIT_MS = 20_000;

/** A table of a queue that is new gets its trigger by itself. */
const COVERED = { action: 'ownership_install', target: 'fleet', outcome: 'done', reason: null } as const;

/** What the daemon's loops do, and what they know: each pass reads, acts through a feature, and tells metrics and log. */
export function createPasses({ context, daemonId, hasBeatFailed, metrics, clock, log }: PassesDependencies) {
  const { config, database, jobs } = context;
  const dependencies = context.sweepDependencies(daemonId, config.dryRun);
  const state: {
    setup: 'pending' | 'ready' | 'failed';
    detail: string;
    gate: GateState | undefined;
    ownership: 'unknown' | 'installed' | 'missing';
    /** Of other roles, as evidence of life. */
    sessions: 'unknown' | 'seen' | 'not seen';
    /** At the last look. */
    seen: { executors: ReadonlyMap<string, number>; incidents: number };
  } = {
    setup: 'pending',
    detail: 'starting',
    gate: undefined,
    ownership: 'unknown',
    sessions: 'unknown',
    seen: { executors: new Map(), incidents: 0 },
  };
  let restraintsLogged = '';
  let wouldLogged = '';
  let unitsForgotten = false;
  let supervisionHeld: string | undefined = 'not yet begun';
  let uncoveredSince: number | undefined;
  /** Where this daemon's last turn of steps broke off; it goes on there. */
  let reconcileFrom: Place | undefined;

  const note = (changes: IncidentChanges) => countIncidents(metrics, changes);

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
    note(await projectGate(context, gate));
    if (config.units.length === 0 && !unitsForgotten) note(await resolveUnits(database, config.node));
    unitsForgotten = true;
  }

  async function runSweep(sweepOptions: SweepOptions): Promise<SweepReport> {
    const startedAt = clock.now();
    // Counted batch by batch: what a sweep took before it broke off has happened. A dry run took nothing.
    const countSwept = (batch: SweptBatch) => {
      countBatch(metrics, batch);
      note(batch.incidents);
    };
    const onBatch = config.dryRun ? undefined : countSwept;
    const report = await sweep(dependencies, { ...sweepOptions, ...(onBatch ? { onBatch } : {}) });
    if (!config.dryRun) observeSweep(metrics, (clock.now() - startedAt) / 1000);
    const { restarted, failed, discarded, held, skipped } = report;
    const found = restarted + failed + discarded + held > 0 ? [restarted, failed, discarded, held].join() : '';
    // What a dry run leaves, the next one finds again.
    const isNews = !config.dryRun || sweepOptions.executorIds !== undefined || found !== wouldLogged;
    if (found !== '' && isNews)
      log.info({ restarted, failed, discarded, held, skipped, dryRun: config.dryRun }, config.dryRun ? 'sweep would' : 'sweep');
    if (sweepOptions.executorIds === undefined) wouldLogged = found;
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
    note(await resolveReleasedHolds(database, jobs));
  }

  async function executorsTurn(): Promise<void> {
    const lookedAt = await readLookTime(database);
    const executors = await refreshExecutors(database, context.registry);
    const fleet = await readFleetState(database, config.node, daemonId, CUT_OFF_AFTER_SECONDS);
    const look = { jobs, executors, fleet, brakes: dependencies.brakes, lookedAt };
    note(await projectHungExecutors(database, config.node, look));
    note(await projectMassStaleness(database, config.node, look));
  }

  async function flowsTurn(): Promise<void> {
    const { resolved, retried, cancelled, flows, incidents, failures } = await settleFlows(context.flowDependencies(config.dryRun));
    note(incidents);
    metrics.flowsStuck.set(flows.length);
    if (!config.dryRun) {
      for (const [action, count] of [
        ['resolved', resolved],
        ['retried', retried],
        ['cancelled', cancelled],
      ] as const)
        metrics.flowActions.inc({ action }, count);
    }
    if (resolved + retried + cancelled > 0)
      log.info({ resolved, retried, cancelled, dryRun: config.dryRun }, config.dryRun ? 'flows would be settled' : 'flows settled');
    if (failures.length > 0) throw new AggregateError(failures, `${failures.length} flows could not be settled: ${String(failures[0])}`);
  }

  async function reconcileTurn(): Promise<void> {
    const report = await reconcileWorkflows(context.reconcileDependencies(), context.scope, {
      dryRun: config.dryRun,
      from: reconcileFrom,
      pages: PAGES_A_TURN,
    });
    reconcileFrom = report.next;
    const { replayed, skipped, unpublished, unnotified, failures } = report;
    if (!config.dryRun) {
      metrics.stepsReplayed.inc(replayed);
      note(await projectExhaustedSteps(database, config.node));
    }
    if (replayed > 0) log.info({ replayed, skipped, dryRun: config.dryRun }, config.dryRun ? 'reconcile would' : 'reconcile');
    if (unpublished > 0) log.warn({ unpublished }, 'replays were notified, but a subscribed queue did not take them');
    if (unnotified > 0) log.warn({ unnotified }, 'replays were published, but are too long to be notified');
    if (failures.length > 0)
      throw new AggregateError(failures, `${failures.length} batches of steps could not be told: ${String(failures[0])}`);
  }

  async function superviseTurn(): Promise<void> {
    const { outageGraceSeconds, startupDelaySeconds } = dependencies.brakes;
    const held = await superviseOnce({
      database,
      node: config.node,
      supervision: context.supervision,
      flows: context.flows,
      readFleet: async () => {
        const fleet = await readFleetState(database, config.node, daemonId, CUT_OFF_AFTER_SECONDS);
        return { ...fleet, ownBeatFresh: fleet.ownBeatFresh && !hasBeatFailed() };
      },
      outageGraceSeconds,
      startupDelaySeconds,
    });
    metrics.supervisionHeld.set(held === undefined ? 0 : 1);
    if (held !== supervisionHeld)
      log.info({ held }, held === undefined ? "pg-boss's queues are supervised" : "pg-boss's supervision is held");
    supervisionHeld = held;
  }

  /** A pass over large tables may take long: it goes on by itself then, turn and all, and a later look tells how it ended. */
  function patiently(pass: () => Promise<PassResult>): () => Promise<PassResult> {
    let underWay: Promise<{ result: PassResult } | { error: unknown }> | undefined;
    return async () => {
      underWay ??= pass().then(
        (result) => ({ result }),
        (error: unknown) => ({ error }),
      );
      const over = new AbortController();
      const ended = await Promise.race([underWay, clock.sleep(SUPERVISE_WAIT_MS, over.signal)]).finally(() => over.abort());
      if (!ended) return undefined;
      underWay = undefined;
      if ('error' in ended) throw ended.error;
      return ended.result;
    };
  }

  async function incidentsTurn(): Promise<void> {
    note(await projectIncidents(context, daemonId));
  }

  async function ownershipTurn(): Promise<void> {
    const target = { schema: config.schema, pgbossSchema: context.pgbossSchema };
    const { node } = config;
    if (config.dryRun) return;
    await context.pgboss.assertNotMoved(database);
    await coverNewTables(database, target, (tx, tables) =>
      appendAudit(tx, { ...COVERED, actor: `reclaimd@${node}`, node, detail: { tables } }),
    );
  }

  /** Our own tables, in a dry run too: whoever fetches goes on filling them. Which attempts still run pg-boss's say. */
  async function rotationTurn(): Promise<void> {
    await context.pgboss.assertNotMoved(database);
    await rotateOwnership(database, { afterSeconds: config.retainAttemptsMs / 1000 });
  }

  /** @returns whether the scheduled run is over, here or on another node. */
  async function retentionRun(dueForSeconds: number, signal: AbortSignal): Promise<boolean> {
    const run = await runArchivePrune(context.pruneDependencies(), {
      actor: `reclaimd@${config.node}`,
      reason: null,
      dueForSeconds,
      signal,
    });
    if ('underWay' in run) log.info(run.underWay, 'retention: a run is under way already');
    else if ('classes' in run)
      for (const [name, { pruned, archived, error }] of Object.entries(run.classes)) {
        metrics.pruned.inc({ class: name }, pruned);
        metrics.archived.inc({ class: name }, archived);
        if (error !== undefined) log.error({ class: name, error }, 'retention failed');
      }
    return !('underWay' in run);
  }

  async function readRetention(): Promise<void> {
    const lookedAt = await readLookTime(database);
    const { classes, lastRun, nextRunAt } = await retentionStatus(context.pruneDependencies());
    for (const { name, rows, bytes, due, oldestAt } of classes) {
      metrics.retainedRows.set({ class: name }, rows);
      metrics.retainedBytes.set({ class: name }, bytes);
      metrics.retentionDue.set({ class: name }, due);
      metrics.retentionOldest.set({ class: name }, oldestAt === null ? 0 : Date.parse(oldestAt) / 1000);
    }
    if (lastRun && lastRun.endedAt !== null) {
      const endedAt = Date.parse(lastRun.endedAt) / 1000;
      metrics.retentionLastRun.set(endedAt);
      if (Object.values(lastRun.result).every(({ error }) => error === undefined)) metrics.retentionLastSuccess.set(endedAt);
    }
    if (nextRunAt !== null) metrics.retentionNextRun.set(Date.parse(nextRunAt) / 1000);
    note(await projectBehind(database, config.node, classes, lookedAt));
    if (!config.dryRun) await tidy();
  }

  async function tidy(): Promise<void> {
    const forgotten = await forgetOutOfReach(context.pruneDependencies());
    const { expired, abandoned } = await tidyArchive(context.pruneDependencies());
    if (expired.length > 0) log.info({ files: expired.length }, 'archived files past their period were removed');
    if (abandoned.length > 0) log.warn({ files: abandoned }, 'files of batches that never came to be were removed');
    if (forgotten.length > 0)
      log.warn({ files: forgotten }, 'archived files past their period that this node cannot reach are no longer registered');
  }

  async function sealTurn(): Promise<void> {
    await sealAudit(database);
  }

  async function readOwnership(): Promise<void> {
    const target = { schema: config.schema, pgbossSchema: context.pgbossSchema };
    const lookedAt = await readLookTime(database);
    const ownership = await ownershipState(database, target);
    const { tables, missing } = ownership;
    const trouble = ownershipTrouble(ownership);
    const records = trouble === undefined;
    const was = state.ownership;
    state.ownership = records ? 'installed' : 'missing';
    if (state.ownership === 'missing' && was !== 'missing')
      log.warn(`ownership is not recorded, and no new job can be given back: ${trouble}`);
    metrics.ownershipInstalled.set(records ? 1 : 0);
    metrics.ownershipTables.set(tables.length - missing.length);
    uncoveredSince = missing.length === 0 ? undefined : (uncoveredSince ?? clock.now());
    metrics.ownershipLag.set(uncoveredSince === undefined ? 0 : (clock.now() - uncoveredSince) / 1000);
    note(await projectOwnership(context, ownership, lookedAt));
  }

  async function readSight(): Promise<void> {
    const was = state.sessions;
    state.sessions = (await maySeeSessions(database)) ? 'seen' : 'not seen';
    if (state.sessions === 'not seen' && was !== 'not seen')
      log.warn("other roles' sessions cannot be seen, and are no evidence of life: a superuser must grant pg_read_all_stats to this role");
  }

  async function readGauges(): Promise<void> {
    await readSight();
    const verdicts = new Map((await countVerdicts(database, EXECUTOR_KEPT_SECONDS)).map((row) => [row.verdict, row.count]));
    for (const verdict of ['alive', 'late', 'missing', 'dead', 'hung', 'stopped', 'unknown'] as const)
      metrics.executors.set({ verdict }, verdicts.get(verdict) ?? 0);
    metrics.systemdConnected.set(context.units?.manager.state === 'connected' ? 1 : 0);
    const fleet = await readFleetState(database, null, null, CUT_OFF_AFTER_SECONDS);
    metrics.brakeActive.set(fleet.braked ? 1 : 0);
    metrics.graceActive.set(fleet.comebackSeconds !== null && fleet.comebackSeconds * 1000 < config.outageGraceMs ? 1 : 0);
    const open = new Map((await countOpen(database)).map((row) => [row.class, row.count]));
    state.seen = { executors: verdicts, incidents: [...open.values()].reduce((sum, count) => sum + count, 0) };
    for (const name of INCIDENT_CLASSES) metrics.incidentsOpen.set({ class: name, severity: severityOf(name) }, open.get(name) ?? 0);
    if (canSee()) await readOwnership();
  }

  const isReady = () => state.setup === 'ready';
  const canSee = () => isReady() && state.gate !== undefined && hasRegistry(state.gate);
  const canAct = () => isReady() && state.gate?.mode === 'act';

  return {
    state,
    isReady,
    canSee,
    canAct,
    setUp,
    runSweep,
    sweepTurn,
    executorsTurn,
    flowsTurn,
    reconcileTurn,
    superviseTurn,
    patiently,
    incidentsTurn,
    ownershipTurn,
    rotationTurn,
    sealTurn,
    retentionRun,
    readRetention,
    readGauges,
  };
}
