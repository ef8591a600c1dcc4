import { type JobStore, nameAttempt } from '../actions/job-store.ts';
import { listHeld } from '../actions/queries.ts';
import type { ExecutorHealth } from '../executors/health.ts';
import { carriersOf, hasOwnName, isGone, isNameShared } from '../executors/owners.ts';
import type { FleetState } from '../fleet/queries.ts';
import { type Finding, type IncidentChanges, listOpenEvidence, project } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';
import { findExcused, type TimeoutBrakes } from './eligibility.ts';
import { listOrphansOf, type Orphan } from './orphans.ts';

export interface Look {
  jobs: JobStore;
  executors: readonly ExecutorHealth[];
  fleet: FleetState;
  brakes: TimeoutBrakes;
  /** Before all of it. */
  lookedAt: string;
}

/** Attempts that the evidence names; the count is exact. */
const NAMED_ATTEMPTS = 20;
/** Held attempts are few: they wait for a person. */
const PAGE = 1_000;

type NamedAttempt = Pick<Orphan, 'queue' | 'jobId' | 'retryCount'>;

interface DeadExecutorEvidence {
  executor: string;
  applicationName: string | null;
  attempts: NamedAttempt[];
}

const fingerprintOf = (id: string) => `dead_executor:${id}`;

/**
 * An executor that is gone, with attempts that are not back yet: open while one is left. What is held has an incident of its own, and
 * comes back when a person says so. An executor whose silence a
 * brake still excuses is neither there nor gone. What is known of an executor may be pruned while its attempts stand:
 * then the attempts that the incident names decide, and where they cannot, it stays open.
 */
export async function projectDeadExecutors(sql: Sql, node: string, look: Look): Promise<IncidentChanges> {
  const { jobs, executors, fleet, brakes, lookedAt } = look;
  const excused = findExcused(executors, fleet, brakes);
  const gone = executors.filter((executor) => isGone(executor) && !excused.has(executor));
  const findings: Finding[] = [];
  for (const [executor, held] of await groupOrphans(sql, jobs, gone, executors)) findings.push(describe(executor, held));
  const found = new Set(findings.map(({ fingerprint }) => fingerprint));
  const unknown = [...excused].map(({ id }) => fingerprintOf(id));
  const open = await listOpenEvidence<DeadExecutorEvidence>(sql, 'dead_executor');
  const living = new Set(executors.filter((executor) => !isGone(executor)).map(({ id }) => id));
  const notFound = open.filter(({ fingerprint, evidence }) => !found.has(fingerprint) && !living.has(evidence.executor));
  unknown.push(...(await listStillOrphaned(sql, jobs, notFound, executors)));
  return project(sql, node, { class: 'dead_executor', unknown, lookedAt }, findings);
}

/** What an executor that is gone still holds. */
interface Held {
  count: number;
  /** The first of them. */
  named: NamedAttempt[];
  /** Some of them are left alone, for they may be the work of another who carries its name. */
  nameShared: boolean;
}

async function groupOrphans(
  sql: Sql,
  jobs: JobStore,
  gone: readonly ExecutorHealth[],
  all: readonly ExecutorHealth[],
): Promise<Map<ExecutorHealth, Held>> {
  const groups = new Map<ExecutorHealth, Held>();
  const byName = Map.groupBy(all, ({ applicationName }) => applicationName);
  // What nobody may give back, because its name may be another's, is not back either.
  for await (const page of listOrphansOf(sql, jobs, { named: gone, gone, all }, carriersOf)) {
    const held = await listHeld(sql, page);
    for (const orphan of page) {
      const { executor, queue, jobId, retryCount, startedOn } = orphan;
      if (!executor || held.has(orphan)) continue;
      const { applicationName: name } = executor;
      const group = groups.get(executor) ?? { count: 0, named: [], nameShared: false };
      group.count += 1;
      group.nameShared ||= name !== null && !hasOwnName(executor) && isNameShared(byName.get(name) ?? [], name, startedOn);
      if (group.named.length < NAMED_ATTEMPTS) group.named.push({ queue, jobId, retryCount });
      groups.set(executor, group);
    }
  }
  return groups;
}

function describe(executor: ExecutorHealth, { count, named, nameShared }: Held): Finding {
  const { id, name, host, pid, verdict, reason, applicationName, nameInUse, queues, stack, env, witnessNode } = executor;
  const attempts = count === 1 ? 'one attempt is' : `${count} attempts are`;
  const others = nameInUse ? 'some session carries' : 'others have carried';
  const held = nameShared ? `; left alone, for ${others} its application_name "${applicationName}"` : '';
  return {
    class: 'dead_executor',
    fingerprint: fingerprintOf(id),
    summary: `${name ?? id}${host ? ` on ${host}` : ''} is ${verdict} (${reason}): ${attempts} not back yet${held}`,
    evidence: { executor: id, applicationName, host, pid, verdict, reason, nameShared, attempts: named },
    affected: count,
    node: witnessNode ?? host,
    stack,
    env,
    queues: [...new Set([...queues, ...named.map(({ queue }) => queue)])].sort(),
  };
}

/**
 * Fingerprints of those whose attempts are not all seen to have ended, or to be held: one that the incident names still runs, or one
 * is recorded under a name that nobody in view carries.
 */
async function listStillOrphaned(
  sql: Sql,
  jobs: JobStore,
  notFound: readonly { fingerprint: string; evidence: DeadExecutorEvidence }[],
  executors: readonly ExecutorHealth[],
): Promise<string[]> {
  if (notFound.length === 0) return [];
  const named = notFound.flatMap(({ evidence }) => evidence.attempts);
  const active = await jobs.listStillActive(sql, named);
  const held = await listHeld(sql, named);
  const carried = new Set(executors.map(({ applicationName }) => applicationName));
  const still: string[] = [];
  for (const { fingerprint, evidence } of notFound) {
    const { applicationName: name, attempts } = evidence;
    const holds =
      attempts.some((attempt) => active.has(nameAttempt(attempt)) && !held.has(attempt)) ||
      (name !== null && !carried.has(name) && (await isAnyLeft(sql, jobs, name)));
    if (holds) still.push(fingerprint);
  }
  return still;
}

/** Whether an attempt that was recorded under the name runs on, and is not held. */
async function isAnyLeft(sql: Sql, jobs: JobStore, name: string): Promise<boolean> {
  let last: Awaited<ReturnType<JobStore['listActive']>>[number] | undefined;
  for (;;) {
    const page = await jobs.listActive(sql, [name], PAGE, last);
    if ((await listHeld(sql, page)).size < page.length) return true;
    if (page.length < PAGE) return false;
    last = page.at(-1);
  }
}
