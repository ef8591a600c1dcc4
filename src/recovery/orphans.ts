import type { Attempt, JobStore } from '../actions/job-store.ts';
import { type ExecutorHealth, findExecutorHealth } from '../executors/health.ts';
import { ownersOf } from '../executors/owners.ts';
import type { Sql } from '../postgres/database.ts';
import { matchesPattern } from '../runtime/pattern.ts';
import type { PolicyRule } from './policy.ts';

/** An attempt that nobody works on any more, and why we say so. */
export interface Orphan extends Attempt {
  executor: ExecutorHealth | null;
  verdict: string;
  proof: string | null;
  reason: string;
  lastAliveAt: string | null;
  staleSeconds?: number;
  /** Set with it: how often the job should beat. */
  beatSeconds?: number;
}

/** Orphans are listed in pages, so that a huge pile takes bounded memory. */
const PAGE = 25_000;

export interface Owners {
  /** Whose attempts are asked for. */
  named: readonly ExecutorHealth[];
  gone: readonly ExecutorHealth[];
  all: readonly ExecutorHealth[];
}

/**
 * The attempts of executors that are gone, page by page; what a page leaves in place does not hide the next. A name that
 * several executors carry belongs to whichever of them lived when the attempt began: unless all of those are gone, it
 * is left alone.
 * @param candidates who may run an attempt.
 */
export async function* listOrphansOf(
  sql: Sql,
  jobs: JobStore,
  { named, gone, all }: Owners,
  candidates = ownersOf,
): AsyncGenerator<Orphan[]> {
  const names = [...new Set(named.map((executor) => executor.applicationName).filter((name) => name !== null))];
  if (names.length === 0) return;
  const goneIds = new Set(gone.map((executor) => executor.id));
  const byName = Map.groupBy(all, (executor) => executor.applicationName);
  let last: Attempt | undefined;
  for (;;) {
    const page = await jobs.listActive(sql, names, PAGE, last);
    const orphans: Orphan[] = [];
    for (const { applicationName, ...attempt } of page) {
      // Rotation may have left one attempt in both tables; in this order they are neighbours.
      if (attempt.jobId === last?.jobId && attempt.queue === last.queue) continue;
      last = attempt;
      const owners = candidates(byName.get(applicationName) ?? [], applicationName, attempt.startedOn);
      const executor = owners.at(-1);
      if (!executor || !owners.every((owner) => goneIds.has(owner.id))) continue;
      const { verdict, proof, reason, lastSignAt } = executor;
      orphans.push({ ...attempt, executor, verdict, proof, reason, lastAliveAt: lastSignAt });
    }
    yield orphans;
    if (page.length < PAGE) return;
  }
}

/**
 * Attempts whose jobs beat, but have not for the time that a policy sets, and that nobody is known to run. Where somebody
 * is, however long out of view, that one's evidence decides: alive, held back by a brake, of another env, or gone and
 * taken as such.
 */
export async function listStaleOrphans(
  sql: Sql,
  jobs: JobStore,
  rules: readonly PolicyRule[],
  mayJudge: (beatSeconds: number) => boolean,
): Promise<Orphan[]> {
  if (rules.length === 0) return [];
  const orphans: Orphan[] = [];
  for (const queue of await jobs.listQueues(sql)) {
    const rule = rules.find((candidate) => matchesPattern(candidate.queue, queue));
    if (rule?.staleAfterMs === undefined) continue;
    const staleSeconds = rule.staleAfterMs / 1000;
    const attempts = (await jobs.listStale(sql, queue, staleSeconds, PAGE)).filter(({ beatSeconds }) => mayJudge(beatSeconds));
    const names = [...new Set(attempts.flatMap(({ applicationName: name }) => (name === null || name === '' ? [] : [name])))];
    const known = names.length === 0 ? [] : await findExecutorHealth(sql, { names });
    for (const { applicationName, ...attempt } of attempts) {
      if (applicationName && ownersOf(known, applicationName, attempt.startedOn).length > 0) continue;
      orphans.push({
        ...attempt,
        executor: null,
        verdict: 'unknown',
        proof: null,
        reason: `no activity for ${staleSeconds} s`,
        lastAliveAt: null,
        staleSeconds,
      });
    }
  }
  return orphans;
}
