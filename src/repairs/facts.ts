import type { JobStore } from '../actions/job-store.ts';
import type { Policy, ResolvedPolicy } from '../actions/limits.ts';
import { readHistory } from '../actions/queries.ts';
import { type ExecutorHealth, type ExecutorRegistry, findExecutorHealth, lookAfresh } from '../executors/health.ts';
import { isNameShared, ownersOf } from '../executors/owners.ts';
import type { Sql } from '../postgres/database.ts';
import { type JobFacts, type Owner, whyNotGone } from './job-plan.ts';

export interface JobName {
  queue: string;
  jobId: string;
}

/** Rotation may have left one attempt in both tables. */
export const eachOnce = <Job extends JobName>(attempts: readonly Job[]): Job[] => [
  ...new Map(attempts.map((attempt) => [`${attempt.queue}/${attempt.jobId}`, attempt])).values(),
];

/** Which policy applies to an orphan: the one that a person named, or by its queue's rules. Its limit is its queue's. */
export type ResolveOrphan = (
  orphan: {
    queue: string;
    jobId: string;
    retryCount: number;
    verdict: string;
    executorId: string | null;
  },
  named: Policy | null,
) => Promise<ResolvedPolicy>;

export interface FactsDependencies {
  jobs: JobStore;
  registry: ExecutorRegistry;
  resolve: ResolveOrphan;
}

/**
 * Everything that a plan rests on, as of now; `lock`: the jobs stay as they are until the transaction ends, and the signs of life are looked at
 * anew. Whoever does not lock has taken those over before.
 */
export async function readFacts(
  { jobs, registry, resolve }: FactsDependencies,
  tx: Sql,
  named: readonly JobName[],
  { policy, lock }: { policy: Policy | null; lock: boolean },
): Promise<JobFacts[]> {
  const rows = await jobs.readJobs(tx, named, { lock });
  const byTarget = new Map(rows.map((row) => [`${row.queue}/${row.jobId}`, row]));
  const names = [...new Set(rows.flatMap(({ applicationName }) => (applicationName === null ? [] : [applicationName])))];
  const look = () => findExecutorHealth(tx, { names });
  // After the lock, which may have been waited for: who beats meanwhile is alive.
  const executors = names.length === 0 ? [] : lock ? await lookAfresh(tx, registry, look) : await look();
  const recoveries = new Map<string, number>();
  const held = new Set<string>();
  for (const [queue, some] of Map.groupBy(rows, (row) => row.queue)) {
    const attempts = some.map(({ jobId, retryCount }) => ({ queue, jobId, retryCount, startedOn: '' }));
    const history = await readHistory(tx, queue, attempts);
    for (const [jobId, count] of history.counts) recoveries.set(`${queue}/${jobId}`, count);
    for (const jobId of history.held) held.add(`${queue}/${jobId}`);
  }
  return Promise.all(named.map(factsOf));

  async function factsOf({ queue, jobId }: JobName): Promise<JobFacts> {
    const row = byTarget.get(`${queue}/${jobId}`);
    const { applicationName: name = null, startedOn = null } = row ?? {};
    const owner = name && startedOn ? ownerAmong(ownersOf(executors, name, startedOn)) : null;
    const sharedName = name && startedOn && isNameShared(executors, name, startedOn) ? name : null;
    const orphan = {
      queue,
      jobId,
      retryCount: row?.retryCount ?? 0,
      verdict: owner?.verdict ?? 'unknown',
      executorId: owner?.executorId ?? null,
    };
    const resolved = await resolve(orphan, policy);
    return {
      queue,
      jobId,
      row,
      owner,
      sharedName,
      resolved: held.has(`${queue}/${jobId}`) ? asHeld(resolved) : resolved,
      recoveries: recoveries.get(`${queue}/${jobId}`) ?? 0,
    };
  }
}

/** The sweep that held it may go by other rules than whoever asks here: it stays held until a person names a policy. */
const asHeld = (resolved: ResolvedPolicy): ResolvedPolicy => (resolved.source === 'operator' ? resolved : { ...resolved, policy: 'hold' });

/** Of several that carry the name, one that may be at work speaks for all. */
function ownerAmong(owners: readonly ExecutorHealth[]): Owner | null {
  const known = owners.map(ownerOf);
  return known.find((owner) => whyNotGone(owner) !== undefined) ?? known.at(-1) ?? null;
}

const ownerOf = ({ id, verdict, proof, reason }: ExecutorHealth): Owner => ({ executorId: id, verdict, proof, reason });
