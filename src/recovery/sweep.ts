import type { JobStore } from '../actions/job-store.ts';
import type { Nomination, Recovered, RescueGateway, RescueResult } from '../actions/rescue.ts';
import { type ExecutorHealth, type ExecutorRegistry, findExecutorHealth, listExecutorHealth, lookAfresh } from '../executors/health.ts';
import { hasOwnName } from '../executors/owners.ts';
import { listNamesInUse } from '../executors/queries.ts';
import { CUT_OFF_AFTER_SECONDS } from '../fleet/beat.ts';
import { type FleetState, readFleetState } from '../fleet/queries.ts';
import { type Finding, type IncidentChanges, raise } from '../incidents/incident.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { slicesOf } from '../runtime/slices.ts';
import { type Crash, listCrashes } from './crashes.ts';
import {
  type Eligibility,
  explainRestraints,
  findGone,
  isSilenceExcused,
  maySilenceCount,
  type Restraint,
  type Scope,
  type TimeoutBrakes,
} from './eligibility.ts';
import { listOrphansOf, listStaleOrphans, type Orphan } from './orphans.ts';
import type { PolicyResolver } from './policy.ts';

export interface SweepResult {
  restarted: number;
  failed: number;
  discarded: number;
  held: number;
  skipped: number;
}

export interface SweepReport extends SweepResult {
  restraints: Restraint[];
  executors: ExecutorHealth[];
  fleet: FleetState;
}

export interface SweepDependencies {
  database: Database;
  jobs: JobStore;
  registry: ExecutorRegistry;
  gateway: RescueGateway;
  policies: () => Promise<PolicyResolver>;
  node: string;
  /** Null for a command: it has no beat of its own, and goes by the fleet's. */
  daemonId: string | null;
  scope: Scope;
  brakes: TimeoutBrakes;
  batch: number;
  /** Says what it would do: no incident is opened, and the gateway is the one that changes nothing. */
  dryRun: boolean;
}

export interface SweptBatch extends RescueResult {
  incidents: IncidentChanges;
}

export interface SweepOptions {
  /** Only these executors' attempts; a death notice names one. */
  executorIds?: readonly string[];
  /** Told of each batch once it is committed (in a dry run: of what it would be). */
  onBatch?(result: SweptBatch): void;
}

/** Batches under way at once: while the database works on one, the next is prepared. */
const LANES = 3;

/** Batches failed; the others went on. */
class SweepIncomplete extends AggregateError {
  override readonly name = 'SweepIncomplete';

  constructor(failures: readonly unknown[]) {
    super(failures, `${failures.length} batches of the sweep failed: ${String(failures[0])}`);
  }
}

/**
 * One pass: whose attempts are orphans, claim them in batches, apply the policy. Each batch is one transaction: what a
 * crash leaves is either done and recorded, or untouched.
 */
export async function sweep(dependencies: SweepDependencies, options: SweepOptions = {}): Promise<SweepReport> {
  const { database, jobs, brakes } = dependencies;
  const policies = await dependencies.policies();
  const { executors, fleet, gone, restraints } = await judgeFleet(dependencies);
  const named = options.executorIds ? gone.filter((executor) => options.executorIds?.includes(executor.id)) : gone;
  const report: SweepReport = { restarted: 0, failed: 0, discarded: 0, held: 0, skipped: 0, restraints, executors, fleet };
  const failures: unknown[] = [];

  const mayJudge = (beatSeconds: number) => maySilenceCount(fleet, brakes, beatSeconds);
  const stale = options.executorIds ? [] : await listStaleOrphans(database, jobs, policies.staleRules, mayJudge);
  await sweepPage(stale);
  for await (const page of listOrphansOf(database, jobs, { named, gone, all: executors })) await sweepPage(page);
  if (failures.length > 0) throw new SweepIncomplete(failures);
  return report;

  async function sweepPage(orphans: readonly Orphan[]): Promise<void> {
    const batches = intoBatches(shuffle(orphans), dependencies.batch);
    const lane = async () => {
      for (const batch of batches) await takeBatch(batch);
    };
    await Promise.all(Array.from({ length: LANES }, lane));
  }

  async function takeBatch(batch: readonly Orphan[]): Promise<void> {
    try {
      const nominations = await Promise.all(batch.map((orphan) => nominate(orphan, policies)));
      const result = await sweepBatch(dependencies, batch, nominations);
      add(report, result);
      options.onBatch?.(result);
    } catch (error) {
      failures.push(error);
    }
  }
}

/** Who is gone, as a sweep would find it now, and who only looks so; reads only. */
export async function judgeFleet(
  dependencies: Pick<SweepDependencies, 'database' | 'daemonId' | 'node' | 'scope' | 'brakes'>,
): Promise<Pick<SweepReport, 'executors' | 'fleet'> & Eligibility> {
  const { database, daemonId, node, scope, brakes } = dependencies;
  const executors = await listExecutorHealth(database);
  const fleet = await readFleetState(database, daemonId === null ? null : node, daemonId, CUT_OFF_AFTER_SECONDS);
  return { executors, fleet, ...findGone(executors, fleet, scope, brakes) };
}

/** Why the silence of those among them that are missing is no evidence now, whatever their scope. */
export async function explainSilence(
  { daemonId, node, brakes }: Pick<SweepDependencies, 'daemonId' | 'node' | 'brakes'>,
  sql: Sql,
  ids: readonly string[],
): Promise<{ executor: string; why: string }[]> {
  const executors = await listExecutorHealth(sql);
  const fleet = await readFleetState(sql, daemonId === null ? null : node, daemonId, CUT_OFF_AFTER_SECONDS);
  const silent = executors.filter(({ id, verdict }) => verdict === 'missing' && ids.includes(id));
  return explainRestraints(silent, executors, fleet, brakes);
}

async function nominate(orphan: Orphan, policies: PolicyResolver): Promise<Nomination> {
  const { executor, ...attempt } = orphan;
  const { queue, jobId, retryCount, verdict } = orphan;
  const executorId = executor?.id ?? null;
  return { ...attempt, executorId, resolved: await policies.resolve({ queue, jobId, retryCount, verdict, executorId }) };
}

async function sweepBatch(
  dependencies: SweepDependencies,
  orphans: readonly Orphan[],
  nominations: readonly Nomination[],
): Promise<SweptBatch> {
  const { database, gateway, node } = dependencies;
  const queue = nominations[0]?.queue ?? '';
  return database.transaction(async (tx) => {
    const standing = new Set(await dropReturned(dependencies, tx, orphans));
    const eligible = nominations.filter((_, index) => standing.has(orphans[index] as Orphan));
    const result = await gateway.rescue(tx, queue, eligible);
    const poison = dependencies.dryRun ? [] : result.recovered.filter(isGivenUp).map(({ jobId }) => jobId);
    const crashes = poison.length > 0 ? await listCrashes(tx, queue, poison) : new Map<string, Crash[]>();
    const incidents = await raise(tx, node, dependencies.dryRun ? [] : findingsOf(result.recovered, orphans, crashes));
    return { ...result, incidents, skipped: result.skipped + nominations.length - eligible.length };
  });
}

/**
 * What may change until the taking is looked at again under the transaction: whoever gave a sign since, was found by a daemon, or
 * was cut off with us, is let go, and so is what was recorded under a name that some session carries.
 */
async function dropReturned(dependencies: SweepDependencies, tx: Sql, orphans: readonly Orphan[]): Promise<readonly Orphan[]> {
  const executors = [...new Set(orphans.flatMap(({ executor }) => executor ?? []))];
  const returned = await listNamesakes(tx, executors);
  const silent = executors.filter(({ verdict }) => verdict === 'missing');
  const isOfUnknown = ({ executor }: Orphan) => executor === null;
  if (silent.length === 0 && !orphans.some(isOfUnknown)) return orphans.filter(({ executor }) => !executor || !returned.has(executor));
  const { registry, daemonId, node, brakes } = dependencies;
  const fleet = await readFleetState(tx, daemonId === null ? null : node, daemonId, CUT_OFF_AFTER_SECONDS);
  const ids = silent.map(({ id }) => id);
  const health = await lookAfresh(tx, registry, () => findExecutorHealth(tx, { ids }));
  const now = new Map(health.map((executor) => [executor.id, executor]));
  for (const executor of silent) {
    const again = now.get(executor.id);
    if (again?.verdict !== 'missing' || !fleet.ownBeatFresh || isSilenceExcused(again, fleet, brakes)) returned.add(executor);
  }
  return orphans.filter(({ executor, beatSeconds = 0 }) =>
    executor ? !returned.has(executor) : maySilenceCount(fleet, brakes, beatSeconds),
  );
}

/** Those of the executors whose name an application gave, and some session carries. */
async function listNamesakes(tx: Sql, executors: readonly ExecutorHealth[]): Promise<Set<ExecutorHealth>> {
  const given = executors.filter((executor) => !hasOwnName(executor));
  if (given.length === 0) return new Set();
  const inUse = await listNamesInUse(
    tx,
    given.flatMap(({ applicationName }) => applicationName ?? []),
  );
  return new Set(given.filter(({ applicationName }) => inUse.has(applicationName ?? '')));
}

/** A policy that a person named has moved it on. */
const isGivenUp = ({ poison, resolved }: Recovered) => poison && resolved.source !== 'operator';

function findingsOf(recovered: readonly Recovered[], orphans: readonly Orphan[], crashes: ReadonlyMap<string, Crash[]>): Finding[] {
  const executors = new Map(orphans.map(({ jobId, executor }) => [jobId, executor]));
  return recovered.flatMap((orphan): Finding[] => {
    const { witnessNode = null, host = null, stack = null, env = null } = executors.get(orphan.jobId) ?? {};
    const place = { node: witnessNode ?? host, stack, env };
    const target = `${orphan.queue}/${orphan.jobId}`;
    const { queue, jobId, retryCount, executorId, verdict, recoveriesBefore, outcome } = orphan;
    const evidence = { queue, jobId, retryCount, executorId, verdict, recoveriesBefore, outcome };
    if (isGivenUp(orphan))
      return [
        {
          ...place,
          class: 'poison_job',
          fingerprint: `poison_job:${target}`,
          summary: `${target} was ${outcome} after ${recoveriesBefore} recoveries`,
          evidence: { ...evidence, crashes: crashes.get(jobId) ?? [] },
        },
      ];
    if (outcome === 'held')
      return [
        {
          ...place,
          class: 'held_orphan',
          fingerprint: `held_orphan:${target}:${retryCount}`,
          summary: `${target} is held: its executor is ${verdict}`,
          evidence,
        },
      ];
    return [];
  });
}

function add(report: SweepReport, { recovered, skipped }: { recovered: Recovered[]; skipped: number }): void {
  for (const orphan of recovered) report[orphan.outcome] += 1;
  report.skipped += skipped;
}

/** One queue a batch: a queue whose batch fails does not keep the others from theirs. */
function* intoBatches(orphans: readonly Orphan[], size: number): Generator<Orphan[]> {
  for (const ofQueue of Map.groupBy(orphans, (orphan) => orphan.queue).values()) yield* slicesOf(ofQueue, size);
}

/** Random order, so that nodes that sweep at once meet different jobs first. */
function shuffle<T>(items: readonly T[]): T[] {
  const shuffled = [...items];
  for (let last = shuffled.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [shuffled[last], shuffled[other]] = [shuffled[other] as T, shuffled[last] as T];
  }
  return shuffled;
}
