import { hostname } from 'node:os';
import type { FlowStore } from './actions/flow-store.ts';
import { createRepairDoor } from './actions/job-repair.ts';
import type { JobStore } from './actions/job-store.ts';
import { createDryRunGateway, createRescueGateway } from './actions/rescue.ts';
import type { SupervisionStore } from './actions/supervision-store.ts';
import { createUnitDoor } from './actions/unit-door.ts';
import type { UnitJournal } from './actions/unit-journal.ts';
import type { UnitManager } from './actions/unit-manager.ts';
import { createWorkflowDoor } from './actions/workflow-door.ts';
import { createAuthorizer, type HostAuthorize } from './authorization/authorize.ts';
import { listNamedPolicies } from './commands/queries.ts';
import type { Config } from './config.ts';
import { claimFleet } from './fleet/queries.ts';
import { createAllowlist } from './healing/allowlist.ts';
import { describeBudget, type HealLimits } from './healing/budget.ts';
import { readBudget } from './healing/budgets.ts';
import { createDetector } from './healing/detect.ts';
import type { HealDependencies } from './healing/heal.ts';
import { listLeftDown } from './healing/queries.ts';
import { recallStops } from './healing/recall-stops.ts';
import { createPgBossAccess } from './pgboss/access.ts';
import { createFlowStore } from './pgboss/flow-store.ts';
import { createJobStore, registry } from './pgboss/job-store.ts';
import { catalogName } from './pgboss/schema-name.ts';
import { createStatementGuard } from './pgboss/statement-guard.ts';
import { createSupervisionStore } from './pgboss/supervision-store.ts';
import { createDatabase, type Database, type Sql } from './postgres/database.ts';
import { assertNotNewer, schemaVersion } from './postgres/migrate.ts';
import { createPolicyResolver, type PolicyResolver, type PolicySources, type ResolvePolicy } from './recovery/policy.ts';
import { listPolicies } from './recovery/policy-table.ts';
import { explainSilence, type SweepDependencies } from './recovery/sweep.ts';
import type { RepairDependencies } from './repairs/preview.ts';
import type { PruneDependencies } from './retention/prune.ts';
import type { Schedule } from './retention/status.ts';
import type { Clock } from './runtime/clock.ts';
import type { Logger } from './runtime/logger.ts';
import { openSystemd } from './systemd/service.ts';
import { findStuckBehind } from './workflows/find-stuck.ts';
import type { ReconcileDependencies } from './workflows/reconcile.ts';
import type { FlowDependencies } from './workflows/stuck-flows.ts';

/** The service manager of this host and what its journal says. */
export interface UnitService {
  manager: UnitManager;
  journal: UnitJournal;
}

/** Our own schema is not there, not up to date, or serves another pg-boss schema. */
export class SchemaNotReady extends Error {
  override readonly name = 'SchemaNotReady';
}

const SUPERVISION_CONNECTIONS = 2;
/** pg-boss's counts take a minute and more in tables of tens of millions of jobs. */
const SUPERVISION_TIMEOUT_MS = 600_000;

export interface ContextOptions {
  config: Config;
  /** The server to use: `config.databaseUrl`, or the embedded one's. */
  databaseUrl: string;
  role: string;
  clock: Clock;
  log: Logger;
  resolvePolicy?: ResolvePolicy | undefined;
  onPolicyError?(error: unknown): void;
  /** The service manager of this host, for those who bring their own. */
  units?: UnitService | undefined;
  /** The host's answer to who may do what; default: the actors file. */
  authorize?: HostAuthorize | undefined;
  /** Where nothing says who may do what, whoever has the database's credentials may: so it is for commands. Default: nobody. */
  trustsDatabaseRole?: boolean;
}

export type Context = Awaited<ReturnType<typeof openContext>>;

/** The adapters that the daemon and the commands share, built once. Nothing is connected until it is used. */
export function openContext(options: ContextOptions) {
  const { config, clock, log } = options;
  const pgbossSchema = catalogName(config.pgbossSchema);
  const openDatabase = (maxConnections: number, statementTimeoutMs: number): Database =>
    createDatabase(
      {
        url: options.databaseUrl,
        applicationName: `reclaimd:${options.role}:${config.node}`.slice(0, 63),
        searchPath: [config.schema, pgbossSchema],
        maxConnections,
        statementTimeoutMs,
        lockTimeoutMs: 5_000,
      },
      { clock, log },
    );
  const database = openDatabase(config.poolMax, 30_000);
  // Supervision counts and deletes in large tables: its statements have their own connections, and time.
  const patient = config.pgbossSupervise ? openDatabase(SUPERVISION_CONNECTIONS, SUPERVISION_TIMEOUT_MS) : undefined;
  const guard = createStatementGuard();
  const pgboss = createPgBossAccess({
    database,
    patient: patient && guard.watch(patient),
    schemaSpelling: config.pgbossSchema,
    location: config.pgbossModule,
    log,
  });
  const healLimits: HealLimits = {
    maxHeals: config.healMax,
    windowSeconds: config.healWindowMs / 1000,
    backoffSeconds: config.healBackoffMs / 1000,
    quietSeconds: config.healQuietMs / 1000,
  };
  const authorize = createAuthorizer({
    authorize: options.authorize,
    actorsFile: config.actorsFile,
    trustsDatabaseRole: options.trustsDatabaseRole ?? false,
  });
  const systemd = options.units ? undefined : openSystemd({ mode: config.systemd, socket: config.systemdBus }, { clock, log });
  const units: UnitService | undefined = options.units ?? systemd;
  const jobs: JobStore = createJobStore(pgboss.client, config.pgbossSchema, pgboss);
  const flows: FlowStore = createFlowStore(pgboss.client, pgboss.assertNotMoved);
  const supervision: SupervisionStore = createSupervisionStore(pgboss.supervisor, guard);

  /** Our schema must be there, fit this program and serve this pg-boss schema. */
  async function checkSchema(): Promise<void> {
    const version = await schemaVersion(database, config.schema);
    assertNotNewer(version, config.schema);
    if (version.present < version.known) {
      throw new SchemaNotReady(`schema "${config.schema}" is at version ${version.present} of ${version.known}: run \`reclaimd migrate\``);
    }
    const serves = await claimFleet(database, pgbossSchema);
    if (serves !== pgbossSchema) {
      throw new SchemaNotReady(
        `schema "${config.schema}" already serves the pg-boss schema "${serves}": give "${pgbossSchema}" its own RECLAIMD_SCHEMA`,
      );
    }
  }

  /** `sql`: the transaction of whoever asks within one, who must not wait for a second connection. */
  async function policies(sql: Sql = database, answers?: PolicySources['answers']): Promise<PolicyResolver> {
    return createPolicyResolver({
      named: new Map((await listNamedPolicies(sql)).map((named) => [named.attempt, named])),
      resolvePolicy: options.resolvePolicy,
      answers,
      configured: config.policies,
      table: await listPolicies(sql),
      defaults: { policy: config.policy, maxRecoveries: config.maxRecoveries, poison: config.poison },
      onError: (error) => options.onPolicyError?.(error),
      clock,
    });
  }

  /** `actor`: the person who asked for it, where one did. */
  function sweepDependencies(daemonId: string | null, dryRun: boolean, actor = `reclaimd@${config.node}`): SweepDependencies {
    return {
      database,
      jobs,
      registry,
      policies: () => policies(),
      daemonId,
      dryRun,
      gateway: dryRun ? createDryRunGateway() : createRescueGateway(jobs, config.node, actor),
      node: config.node,
      scope: { stack: config.stack ?? null, env: config.env ?? null },
      batch: config.batch,
      brakes: {
        percent: config.brakePercent,
        minimum: config.brakeMinimum,
        startupDelaySeconds: config.startupDelayMs / 1000,
        outageGraceSeconds: config.outageGraceMs / 1000,
      },
    };
  }

  /** What the settling of stuck flows stands on. */
  function flowDependencies(dryRun: boolean, actor = `reclaimd@${config.node}`): FlowDependencies {
    const { node, workflowPolicies: rules } = config;
    return { database, flows, door: createWorkflowDoor({ jobs, flows, node }), rules, node, actor, dryRun };
  }

  /** What the replay of missed events stands on. */
  function reconcileDependencies(actor = `reclaimd@${config.node}`): ReconcileDependencies {
    const { schema, node, replayAfterMs, replayMax } = config;
    return { database, flows, schema, node, actor, replayAfterSeconds: replayAfterMs / 1000, replayMax };
  }

  /** What pruning and its status stand on; periods in seconds. */
  function pruneDependencies(): PruneDependencies & { schedule: Schedule } {
    const periods = {
      attempts: config.retainAttemptsMs / 1000,
      recoveries: config.retainRecoveriesMs / 1000,
      executors: config.retainExecutorsMs / 1000,
      nodes: config.retainNodesMs / 1000,
      daemons: config.retainDaemonsMs / 1000,
      incidents: config.retainIncidentsMs / 1000,
      previews: config.retainPreviewsMs / 1000,
      heals: config.retainHealsMs / 1000,
      unit_lives: config.retainUnitLivesMs / 1000,
      crashes: config.retainCrashesMs / 1000,
      commands: config.retainCommandsMs / 1000,
      workflows: config.retainWorkflowsMs / 1000,
      workflow_actions: config.retainWorkflowActionsMs / 1000,
      audit: config.retainAuditMs / 1000,
      runs: config.retainRunsMs / 1000,
      restored: config.retainRestoredMs / 1000,
      archive: config.retainArchiveMs / 1000,
    };
    return {
      database,
      clock,
      periods,
      node: config.node,
      budgetMs: config.retentionBudgetMs,
      archiveDirectory: config.archiveDirectory,
      schedule: { expression: config.retentionSchedule, timeZone: config.retentionZone },
    };
  }

  /** What a person's repairs stand on. */
  function repairDependencies(): RepairDependencies {
    return {
      database,
      clock,
      jobs,
      registry,
      flows,
      flowDoor: createWorkflowDoor({ jobs, flows, node: config.node }),
      findStuck: (sql, job) => findStuckBehind(sql, flows, job),
      authorize,
      door: createRepairDoor(jobs, config.node),
      policies: async (sql, answers) => {
        const { resolve, resolveNamed } = await policies(sql, answers);
        return async (orphan, named) => (named === null ? resolve(orphan) : resolveNamed(orphan.queue, named));
      },
      explainSilence: (sql, ids) => explainSilence(sweepDependencies(null, true), sql, ids),
      node: config.node,
      dryRun: config.dryRun,
      whyObserving: async () => {
        const gate = await pgboss.probe();
        return gate.mode === 'act' ? undefined : gate.detail;
      },
    };
  }

  /** What healing stands on; undefined where there is no service manager to be had. */
  function healDependencies(): HealDependencies | undefined {
    if (!units) return undefined;
    const { manager, journal } = units;
    const allowlist = createAllowlist(config.units);
    const host = hostname();
    const [desired, declaredStopped] = [createAllowlist(config.unitsDesired), createAllowlist(config.unitsStopped)];
    return {
      units: manager,
      journal,
      clock,
      allowlist,
      host,
      node: config.node,
      settleMs: config.healSettleMs,
      healStopped: config.healStopped,
      limits: healLimits,
      detector: createDetector({
        units: manager,
        journal: recallStops(journal, database, host),
        clock,
        allowlist,
        desired,
        declaredStopped,
        listLeftDown: () => listLeftDown(database, host),
      }),
      door: createUnitDoor({
        database,
        clock,
        host,
        node: config.node,
        // Its aliases must be asked for, and where nothing is excluded they do not matter.
        allows: async (unit) =>
          allowlist.allows(unit) &&
          (!allowlist.excludesSome || allowlist.allowsUnit((await manager.read(unit)) ?? { unit, names: [unit] })),
        mayActAgainIn: async (tx, unit) => {
          const budget = await readBudget(tx, host, unit, healLimits);
          return { seconds: budget.againInSeconds, why: describeBudget(budget) };
        },
      }),
    };
  }

  return {
    config,
    clock,
    database,
    jobs,
    flows,
    supervision,
    registry,
    pgboss,
    pgbossSchema,
    checkSchema,
    probePgBoss: pgboss.probe,
    policies,
    sweepDependencies,
    healDependencies,
    repairDependencies,
    pruneDependencies,
    flowDependencies,
    reconcileDependencies,
    scope: { stack: config.stack ?? null, env: config.env ?? null },
    authorize,
    units,
    /** Undefined where the host brought its own service manager. */
    tryReset: systemd?.tryReset,
    close: async () => {
      systemd?.close();
      await pgboss.close();
      await Promise.all([database.close(), patient?.close()]);
    },
  };
}
