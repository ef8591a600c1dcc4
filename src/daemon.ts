import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { hostname } from 'node:os';
import { endAllAbandoned } from './actions/unit-record.ts';
import { inTurn } from './claims/run-turn.ts';
import { COMMAND_NOTICE } from './commands/queries.ts';
import { createCommandServer } from './commands/server.ts';
import type { Config } from './config.ts';
import { openContext, SchemaNotReady, type UnitService } from './context.ts';
import { createAdoption } from './executors/adoption.ts';
import type { Proof } from './executors/verdict.ts';
import { BEAT_INTERVAL_MS, createBeat } from './fleet/beat.ts';
import { type NodeIdentity, saveNodeStop } from './fleet/queries.ts';
import { createAllowlist } from './healing/allowlist.ts';
import { createBlame } from './healing/blame.ts';
import { readUnitOf } from './host/cgroup.ts';
import { isPidAmbiguous, openProcess, readBootId, readPidNamespace, secondsSinceBoot, seesWholeMachine } from './host/process.ts';
import { startHttpServer } from './http/server.ts';
import { createHungFence } from './hung-fence.ts';
import { createMetrics, labelOfResult } from './metrics/metrics.ts';
import { createPasses } from './passes.ts';
import { SchemaIsNewer } from './postgres/migrate.ts';
import type { ResolvePolicy } from './recovery/policy.ts';
import { awaitGivenBack } from './repairs/given-back.ts';
import { listExecutorsIn } from './repairs/unit-executors.ts';
import { scheduleRetention } from './retention/schedule.ts';
import { type Clock, systemClock } from './runtime/clock.ts';
import { createLogger, errorFields, type Logger } from './runtime/logger.ts';
import { type Loop, type LoopDefinition, type PassResult, startLoop } from './runtime/loop.ts';
import { SUPERVISE_TURN } from './supervision/take-over.ts';
import { runUnitCommand } from './unit-commands.ts';
import { createUnitPasses, UNITS_INTERVAL_MS } from './unit-passes.ts';

export interface DaemonOptions {
  /** The server to use when it is not `config.databaseUrl`: an embedded one. */
  databaseUrl?: string;
  log?: Logger;
  clock?: Clock;
  resolvePolicy?: ResolvePolicy | undefined;
  /** The service manager of this host, for those who bring their own. */
  units?: UnitService | undefined;
}

export interface Daemon {
  /** Where /metrics and the health pages are; undefined when RECLAIMD_LISTEN is `off`. */
  readonly url: string | undefined;
  /** Every loop has turned once, with whatever result. */
  readonly firstPass: Promise<void>;
  /** The loops turn; says nothing of the database. */
  isAlive(): boolean;
  /** One line for whoever looks at the service: what is watched, what is wrong, what is missing. */
  describe(): string;
  /** Ends the loops, says goodbye to the fleet and closes every connection; within seconds. */
  stop(): Promise<void>;
}

/** One statement, which the database's time-outs end within 40 s. */
const BEAT_LIMIT_MS = 60_000;
const SETUP_INTERVAL_MS = 5_000;
const ADOPT_INTERVAL_MS = 1_000;
/** A death is noticed within this time, for one small read an executor. */
const WATCH_INTERVAL_MS = 50;
const EXECUTORS_INTERVAL_MS = 2_000;
/** The whole of them; what changes sooner is projected by the pass that sees it. */
const INCIDENTS_INTERVAL_MS = 5_000;
const OWNERSHIP_INTERVAL_MS = 10_000;
/** pg-boss's own for flows; its passes over queues claim their interval themselves. */
const SUPERVISE_INTERVAL_MS = 5_000;
/** How long an audit event may stand outside of the chain. */
const SEAL_INTERVAL_MS = 5_000;
/** Only what no notice told of, and what nobody came back to tell of. */
const COMMANDS_INTERVAL_MS = 5_000;
/** Only what could not be learned of the executors' units when it happened. */
const LIVES_INTERVAL_MS = 10_000;
/** Counting what is due reads whole tables. */
const RETENTION_LOOK_MS = 15 * 60_000;
const RETENTION_LOOK_LIMIT_MS = 120_000;
/** Another node's run, or one of ours that broke off, may still hold its lease. */
const RETENTION_RETRY_MS = 30_000;
const GAUGES_INTERVAL_MS = 10_000;
/** Only what a failed sweep left; a death wakes the loop at once. */
const NOTICE_FALLBACK_MS = 1_000;
/** The node that proved a death acts first; the others come after, should it die meanwhile. */
const HEARD_DELAY_MS = 500;
/** With the goodbyes within the 15 s that our unit is given. */
const STOP_LIMIT_MS = 8_000;
const GOODBYE_LIMIT_MS = 2_000;
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
    units: options.units,
    onPolicyError: (error) => {
      metrics.policyErrors.inc();
      log.error(errorFields(error), 'resolvePolicy failed; the lists decide');
    },
  });
  const { database } = context;
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
  const { beat, hasFailed } = createBeat({ identity, log, onNodeConflict: () => metrics.nodeConflicts.inc() });
  const passes = createPasses({ context, daemonId: identity.daemonId, hasBeatFailed: hasFailed, metrics, clock, log });
  const { state, isReady, canSee, canAct } = passes;
  let databaseUp = false;
  let conditions = '';
  const pendingDeaths = new Set<string>();
  const stopping = new AbortController();

  metrics.buildInfo.set({ version, node_version: process.version }, 1);

  const unitOf = (pid: number) => readUnitOf(pid, config.systemd === 'user' ? 'user' : 'system');
  const blame =
    context.units &&
    createBlame({
      database,
      jobs: context.jobs,
      units: context.units.manager,
      journal: context.units.journal,
      clock,
      log,
      host: identity.host,
      node: config.node,
      allows: createAllowlist(config.units).allowsUnit,
      unitOf,
      onCrash: (result) => metrics.unitCrashes.inc({ result: labelOfResult(result) }),
    });
  const looksAtProcesses = config.processes === 'on' || (config.processes === 'auto' && seesWholeMachine());
  const adoption = createAdoption({
    onAdopted: (executorId, pid) => void blame?.learn(executorId, pid),
    onReleased: (executorId) => blame?.forget(executorId),
    database,
    clock,
    log,
    registry: context.registry,
    processes: {
      bootId: looksAtProcesses ? (identity.bootId ?? undefined) : undefined,
      pidNamespace: readPidNamespace(),
      secondsSinceBoot,
      open: openProcess,
      isPidAmbiguous,
    },
    host: identity.host,
    node: config.node,
    daemonId: identity.daemonId,
    stack: identity.stack,
    env: identity.env,
    onDeath: (executorId: string, proof: Proof) => {
      metrics.deaths.inc({ proof });
      noticeDeath(executorId);
      // What ends with its host was no crash of its unit.
      if (proof === 'process_gone') void blame?.record(executorId);
    },
  });

  function noticeDeath(executorId: string): void {
    pendingDeaths.add(executorId);
    wake('deaths');
  }

  function wake(name: string): void {
    loops.find((loop) => loop.name === name)?.wake();
  }

  /** A pass that waits for its condition, looking again at its own pace and when the set-up has found something else. */
  const when = (condition: () => boolean, pass: () => Promise<PassResult> | Promise<void>) => async (): Promise<PassResult> =>
    condition() ? ((await pass()) ?? undefined) : { idle: true };

  const turn = (name: string, intervalMs: number, pass: () => Promise<void>) =>
    inTurn({ sql: database, clock, daemonId: identity.daemonId }, name, intervalMs, pass);

  /** As above, for what acts: a dry run looks without taking a turn from those who do act. */
  const actingTurn: typeof turn = (name, intervalMs, pass) => {
    if (!config.dryRun) return turn(name, intervalMs, pass);
    return async () => {
      await pass();
      return undefined;
    };
  };

  async function sweepDeaths(): Promise<void> {
    const executorIds = [...pendingDeaths];
    if (executorIds.length === 0) return;
    await passes.runSweep({ executorIds });
    for (const id of executorIds) pendingDeaths.delete(id);
  }

  /** Where nothing may be changed the notices would pile up; the first sweep that may finds the dead by itself. */
  async function deathsPass(): Promise<PassResult> {
    if (state.gate?.mode === 'observe') pendingDeaths.clear();
    else if (canAct()) await sweepDeaths();
    return undefined;
  }

  // A node sweeps its own scope only, so each scope has its own turns.
  const { env, stack } = identity;
  const ofScope = (name: string) => (env === null && stack === null ? name : `${name} ${JSON.stringify({ env, stack })}`);
  let hasLooked = false;
  /** Processes first, silence second: what a reboot proves is never told as mere silence. */
  const adoptPass = async () => {
    await adoption.adopt().finally(() => {
      if (!hasLooked) wake('sweep');
      hasLooked = true;
    });
  };
  let hasSwept = false;
  const sweepTurn = actingTurn(ofScope('sweep'), config.sweepIntervalMs, passes.sweepTurn);
  /** Once, by whichever node: then what its sweep ended is known to those who reconcile. */
  const sweepPass = async () => {
    const result = await sweepTurn();
    if (!hasSwept) wake('reconcile');
    hasSwept = true;
    return result;
  };
  const definitions: LoopDefinition[] = [
    { name: 'setup', intervalMs: SETUP_INTERVAL_MS, pass: passes.setUp },
    { name: 'beat', intervalMs: BEAT_INTERVAL_MS, jitter: 0, passLimitMs: BEAT_LIMIT_MS, pass: when(isReady, () => beat(database)) },
    { name: 'adopt', intervalMs: ADOPT_INTERVAL_MS, pass: when(canSee, adoptPass) },
    { name: 'watch', intervalMs: WATCH_INTERVAL_MS, jitter: 0, pass: adoption.watch },
    { name: 'deaths', intervalMs: NOTICE_FALLBACK_MS, pass: deathsPass },
    {
      name: 'executors',
      intervalMs: EXECUTORS_INTERVAL_MS,
      pass: when(canSee, turn('executors', EXECUTORS_INTERVAL_MS, passes.executorsTurn)),
    },
    {
      name: 'sweep',
      intervalMs: config.sweepIntervalMs,
      pass: when(() => canAct() && hasLooked, sweepPass),
    },
    {
      name: 'incidents',
      intervalMs: INCIDENTS_INTERVAL_MS,
      pass: when(isReady, turn('incidents', INCIDENTS_INTERVAL_MS, passes.incidentsTurn)),
    },
    {
      name: 'ownership',
      intervalMs: OWNERSHIP_INTERVAL_MS,
      pass: when(canAct, actingTurn('ownership', OWNERSHIP_INTERVAL_MS, passes.ownershipTurn)),
    },
    {
      name: 'rotation',
      intervalMs: OWNERSHIP_INTERVAL_MS,
      pass: when(canAct, passes.patiently(turn('rotation', OWNERSHIP_INTERVAL_MS, passes.rotationTurn))),
    },
    {
      name: 'flows',
      intervalMs: config.reconcileIntervalMs,
      pass: when(canAct, actingTurn('flows', config.reconcileIntervalMs, passes.flowsTurn)),
    },
    {
      name: 'reconcile',
      intervalMs: config.reconcileIntervalMs,
      pass: when(() => canAct() && hasSwept, actingTurn(ofScope('reconcile'), config.reconcileIntervalMs, passes.reconcileTurn)),
    },
    { name: 'audit', intervalMs: SEAL_INTERVAL_MS, pass: when(isReady, turn('audit', SEAL_INTERVAL_MS, passes.sealTurn)) },
    { name: 'gauges', intervalMs: GAUGES_INTERVAL_MS, pass: when(isReady, passes.readGauges) },
  ];

  const dependencies = config.units.length > 0 ? context.healDependencies() : undefined;
  if (config.pgbossSupervise && !config.dryRun)
    definitions.push({
      name: 'supervise',
      intervalMs: SUPERVISE_INTERVAL_MS,
      pass: when(canAct, passes.patiently(turn(SUPERVISE_TURN, SUPERVISE_INTERVAL_MS, passes.superviseTurn))),
    });

  const { registry, scope, brakes } = context.sweepDependencies(identity.daemonId, config.dryRun);
  const { node, hungAfterMs } = config;
  const fence =
    hungAfterMs === undefined
      ? undefined
      : createHungFence({ database, registry, node, daemonId: identity.daemonId, scope, brakes, hungAfterSeconds: hungAfterMs / 1000 });
  const unitPasses =
    dependencies && createUnitPasses({ config, database, dependencies, fence, metrics, clock, log, onChange: () => wake('units') });
  if (unitPasses) definitions.push({ name: 'units', intervalMs: UNITS_INTERVAL_MS, pass: when(isReady, unitPasses.unitsPass) });

  if (blame) definitions.push({ name: 'lives', intervalMs: LIVES_INTERVAL_MS, pass: when(isReady, blame.refresh) });

  const retention = scheduleRetention({ config, clock, log, onDue: () => wake('retention') });
  definitions.push({
    name: 'retention',
    intervalMs: RETENTION_LOOK_MS,
    passLimitMs: config.retentionBudgetMs + RETENTION_LOOK_LIMIT_MS,
    // What is due is read beside pg-boss's jobs.
    pass: when(canSee, async () => {
      const dueForSeconds = config.dryRun ? undefined : retention.dueForSeconds();
      const isOver = dueForSeconds === undefined || (await passes.retentionRun(dueForSeconds, stopping.signal));
      if (!isOver) return { againInMs: RETENTION_RETRY_MS };
      retention.settle();
      if (!stopping.signal.aborted) await passes.readRetention();
      return undefined;
    }),
  });

  const commands = createCommandServer({
    database,
    clock,
    log,
    node: config.node,
    daemonId: identity.daemonId,
    run: async (command, emit, hold) =>
      config.dryRun && command.action !== 'look'
        ? { outcome: 'refused', error: 'RECLAIMD_DRY_RUN is set there' }
        : runUnitCommand(dependencies, command, {
            emit,
            hold,
            listExecutorsIn: async (unit) => {
              if (canSee()) await context.registry.importExecutors(database, identity.host);
              return listExecutorsIn(database, identity.host, unit, looksAtProcesses ? unitOf : undefined);
            },
            awaitGivenBack: (executorId) => awaitGivenBack(context, executorId),
          }),
  });
  const commandsPass = async () => {
    await commands.serve();
    await endAllAbandoned(database, config.node);
  };
  definitions.push({ name: 'commands', intervalMs: COMMANDS_INTERVAL_MS, pass: when(isReady, commandsPass) });

  const firstSetup = Promise.withResolvers<void>();
  const firstPass = Promise.withResolvers<void>();
  const unturned = new Set(definitions.map(({ name }) => name));
  const loops: Loop[] = [];
  const server =
    config.listen === 'off'
      ? undefined
      : await startHttpServer({ listen: config.listen, registry: metrics.registry, livez, readyz }, { log }).catch(
          async (error: unknown) => {
            blame?.stop();
            await context.close();
            throw error;
          },
        );

  retention.start();
  for (const definition of definitions) {
    loops.push(startLoop(definition, { clock, log, observe: observeLoop }));
    // The others begin once the first look at the database is over, whatever it said.
    if (definition.name === 'setup') await within(FIRST_SETUP_LIMIT_MS, firstSetup.promise);
  }
  const listener = database.listen(`${config.schema}_death`, {
    // A death that was not heard is found by the next sweep; a command would wait for its loop.
    onListening: () => wake('commands'),
    onMessage: (executorId) => {
      if (executorId === `${COMMAND_NOTICE}${config.node}`) return wake('commands');
      if (executorId.startsWith(COMMAND_NOTICE) || pendingDeaths.has(executorId)) return;
      void clock.sleep(HEARD_DELAY_MS * (1 + Math.random()), stopping.signal).then(() => noticeDeath(executorId));
    },
  });
  if (config.units.length > 0 && !dependencies)
    log.warn('RECLAIMD_UNITS names units, but there is no systemd to be asked: see RECLAIMD_SYSTEMD');
  if (config.processes === 'auto' && !looksAtProcesses)
    log.warn(
      "this host's processes are not looked at, executors are judged by their beats: the daemon does not see the pids of a whole machine (RECLAIMD_PROCESSES)",
    );
  log.info({ version, pgboss: context.pgboss.version, dryRun: config.dryRun, url: server?.url }, 'reclaimd runs');

  /** Waits for `work`, but no longer; a timer left behind would keep a process alive that has nothing more to do. @returns whether it ended. */
  async function within(limitMs: number, work: Promise<void>): Promise<boolean> {
    const over = new AbortController();
    return Promise.race([work.then(() => true), clock.sleep(limitMs, over.signal).then(() => false)]).finally(() => over.abort());
  }

  function observeLoop(loop: string, seconds: number, error: unknown): void {
    metrics.loopRuns.inc({ loop, result: error === undefined ? 'ok' : 'error' });
    metrics.loopDuration.observe({ loop }, seconds);
    if (unturned.delete(loop) && unturned.size === 0) firstPass.resolve();
    if (loop === 'setup') {
      firstSetup.resolve();
      databaseUp = error === undefined || error instanceof SchemaNotReady || error instanceof SchemaIsNewer;
      metrics.databaseUp.set(databaseUp ? 1 : 0);
      noteConditions();
    }
  }

  /** Whoever waited for what the set-up has found now need not wait for its interval. */
  function noteConditions(): void {
    const now = [isReady(), canSee(), canAct()].join();
    if (now !== conditions) for (const loop of loops) if (loop.name !== 'setup') loop.wake();
    conditions = now;
  }

  function livez() {
    const stalled = loops.filter((loop) => {
      const { turnedAt, silenceLimitMs } = loop.progress();
      return clock.now() - turnedAt > silenceLimitMs;
    });
    return { ok: stalled.length === 0, detail: { stalled: stalled.map((loop) => loop.name) } };
  }

  function readyz() {
    const ok = databaseUp && canAct() && state.ownership === 'installed' && (!unitPasses || context.units?.manager.state === 'connected');
    return {
      ok,
      detail: {
        database: databaseUp ? 'up' : 'down',
        schema: isReady() ? 'ready' : state.detail,
        pgboss: state.gate?.detail ?? 'not probed yet',
        ownership: state.ownership,
        sessions: state.sessions,
        systemd: context.units?.manager.state ?? 'not used',
        dryRun: config.dryRun,
      },
    };
  }

  function describe(): string {
    const { ok, detail } = readyz();
    if (!ok) {
      const { database: base, schema, pgboss, ownership, systemd } = detail;
      return `degraded: database ${base}; schema ${schema}; ${pgboss}; ownership ${ownership}; systemd ${systemd}`;
    }
    const { executors, incidents } = state.seen;
    const counts = [...executors].filter(([, count]) => count > 0).map(([verdict, count]) => `${count} ${verdict}`);
    return `${config.dryRun ? 'dry run; ' : ''}executors: ${counts.join(', ') || 'none'}; open incidents: ${incidents}`;
  }

  async function stopWork(): Promise<void> {
    stopping.abort();
    await Promise.all([listener.stop(), unitPasses?.stop(), commands.stop(), ...loops.map((loop) => loop.stop())]);
  }

  async function sayGoodbye(): Promise<void> {
    if (!isReady()) return;
    await saveNodeStop(database, config.node, identity.daemonId).catch((error: unknown) =>
      log.warn(errorFields(error), 'could not say goodbye'),
    );
  }

  return {
    url: server?.url,
    firstPass: firstPass.promise,
    isAlive: () => livez().ok,
    describe,
    stop: async () => {
      log.info('stopping');
      if (!(await within(STOP_LIMIT_MS, stopWork())))
        log.warn({ limitMs: STOP_LIMIT_MS }, 'something is still at work; not waiting for it');
      adoption.close();
      retention.stop();
      blame?.stop();
      await within(GOODBYE_LIMIT_MS, sayGoodbye());
      await within(GOODBYE_LIMIT_MS, context.close());
      await server?.close();
      log.info('stopped');
    },
  };
}
