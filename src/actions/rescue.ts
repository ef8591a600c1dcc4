import { appendAudit } from '../audit/append.ts';
import type { Sql } from '../postgres/database.ts';
import { UniqueViolation } from '../postgres/errors.ts';
import type { Attempt, JobStore } from './job-store.ts';
import { applyPoisonLimit, type Policy, type ResolvedPolicy } from './limits.ts';
import { type RecoveryRecord, readHistory, saveRecoveries } from './queries.ts';

/** An orphan that a sweep puts forward, with what is known of its owner and the policy that applies to it. */
export interface Nomination extends Attempt {
  executorId: string | null;
  verdict: string;
  proof: string | null;
  reason: string;
  lastAliveAt: string | null;
  /** Set where the job's own silence is the evidence: taken only while that lasts. */
  staleSeconds?: number;
  resolved: ResolvedPolicy;
}

export type Outcome = 'restarted' | 'failed' | 'discarded' | 'held';

export interface Recovered extends Nomination {
  policy: Policy;
  outcome: Outcome;
  poison: boolean;
  recoveriesBefore: number;
  /** From the last sign of life to the requeue, by the database; null in a dry run or where nothing is known. */
  detectionSeconds: number | null;
}

export interface RescueResult {
  recovered: Recovered[];
  /** Somebody else has them, or they have moved on. */
  skipped: number;
}

/** The one door through which attempts are taken from their executors. */
export interface RescueGateway {
  /** Claims, acts and records within the given transaction; all nominations are of one queue. */
  rescue(tx: Sql, queue: string, nominations: readonly Nomination[]): Promise<RescueResult>;
}

const OUTCOME: Record<Policy, Outcome> = { restart: 'restarted', fail: 'failed', discard: 'discarded', hold: 'held' };

/** `actor`: whose sweeps these are. */
export function createRescueGateway(jobs: JobStore, node: string, actor: string): RescueGateway {
  return {
    rescue: async (tx, queue, nominations) => {
      const result = await rescueAttempts({ jobs, node }, tx, queue, nominations);
      if (result.recovered.length > 0)
        await appendAudit(tx, {
          actor,
          action: 'sweep',
          target: queue,
          outcome: 'done',
          reason: null,
          node,
          detail: { effects: effectsOf(result.recovered) },
        });
      return result;
    },
  };
}

/** Claims, acts and records; the audit is the door's that calls it. */
export async function rescueAttempts(
  { jobs, node }: { jobs: JobStore; node: string },
  tx: Sql,
  queue: string,
  nominations: readonly Nomination[],
): Promise<RescueResult> {
  const locked = await claim(jobs, tx, queue, nominations);
  const decided = await decide(
    tx,
    queue,
    nominations.filter((nomination) => locked.has(nomination.jobId)),
  );
  const restart = decided.filter((orphan) => orphan.policy === 'restart');
  const conflicting = restart.length > 0 ? await requeue(jobs, tx, queue, restart) : new Set<string>();
  for (const orphan of restart) if (conflicting.has(orphan.jobId)) orphan.outcome = 'failed';
  for (const [outcome, act] of [
    ['failed', jobs.fail],
    ['discarded', jobs.discard],
  ] as const) {
    const orphans = decided.filter((orphan) => orphan.outcome === outcome);
    for (const group of byReason(orphans)) await act(tx, queue, group, failureOutput(group[0] as Recovered, node));
  }
  if (decided.some((orphan) => orphan.outcome !== 'held')) await jobs.wake(tx, queue);
  if (decided.length > 0) {
    const seconds = await saveRecoveries(
      tx,
      node,
      decided.map((orphan) => recordOf(orphan)),
    );
    decided.forEach((orphan, index) => {
      orphan.detectionSeconds = seconds[index] ?? null;
    });
  }
  return { recovered: decided, skipped: nominations.length - decided.length };
}

/** The same door, locked: says what would be done and changes nothing. */
export function createDryRunGateway(): RescueGateway {
  return {
    rescue: async (tx, queue, nominations) => {
      const recovered = await decide(tx, queue, nominations, { withHeld: true });
      return { recovered, skipped: 0 };
    },
  };
}

async function claim(jobs: JobStore, tx: Sql, queue: string, nominations: readonly Nomination[]): Promise<Set<string>> {
  const claimed = new Set<string>();
  for (const staleSeconds of new Set(nominations.map((nomination) => nomination.staleSeconds))) {
    const group = nominations.filter((nomination) => nomination.staleSeconds === staleSeconds);
    for (const id of await jobs.lock(tx, queue, group, staleSeconds)) claimed.add(id);
  }
  return claimed;
}

/** Applies the per-job limit under the lock; what is held already is left out, unless somebody only asks. */
async function decide(tx: Sql, queue: string, nominations: readonly Nomination[], { withHeld = false } = {}): Promise<Recovered[]> {
  if (nominations.length === 0) return [];
  const { counts, held } = await readHistory(tx, queue, nominations);
  const decided = nominations.map((nomination): Recovered => {
    const recoveriesBefore = counts.get(nomination.jobId) ?? 0;
    const { policy, poison } = applyPoisonLimit(nomination.resolved, recoveriesBefore);
    return { ...nomination, policy, poison, outcome: OUTCOME[policy], recoveriesBefore, detectionSeconds: null };
  });
  return decided.filter((orphan) => withHeld || orphan.outcome !== 'held' || !held.has(orphan.jobId));
}

/**
 * Requeues together; where a queue policy (stately, exclusive, ...) has no room for one of them, one by one.
 * @returns the ids that found no room. They would block their key for ever, so the caller fails them instead.
 */
async function requeue(jobs: JobStore, tx: Sql, queue: string, attempts: readonly Attempt[]): Promise<Set<string>> {
  const conflicting = new Set<string>();
  if (await tryRequeue(attempts)) return conflicting;
  for (const attempt of attempts) if (!(await tryRequeue([attempt]))) conflicting.add(attempt.jobId);
  return conflicting;

  async function tryRequeue(some: readonly Attempt[]): Promise<boolean> {
    await tx.query('SAVEPOINT requeue');
    try {
      await jobs.requeue(tx, queue, some);
      await tx.query('RELEASE SAVEPOINT requeue');
      return true;
    } catch (error) {
      if (!(error instanceof UniqueViolation)) throw error;
      await tx.query('ROLLBACK TO SAVEPOINT requeue');
      return false;
    }
  }
}

/** Each attempt as `JOB-ID:RETRY-COUNT`, under what was done to it: a batch may be a thousand of them. */
function effectsOf(orphans: readonly Recovered[]): object[] {
  const alike = Map.groupBy(orphans, ({ executorId, policy, outcome, poison }) => `${executorId} ${policy} ${outcome} ${poison}`);
  return [...alike.values()].map((group) => {
    const { executorId, policy, outcome, poison } = group[0] as Recovered;
    return { executor: executorId, policy, outcome, poison, attempts: group.map(({ jobId, retryCount }) => `${jobId}:${retryCount}`) };
  });
}

function byReason(orphans: readonly Recovered[]): Recovered[][] {
  return [...Map.groupBy(orphans, (orphan) => `${orphan.executorId} ${orphan.poison} ${orphan.reason}`).values()];
}

/** What the job's output says of its end, for whoever reads it in pg-boss. */
function failureOutput({ verdict, reason, executorId, poison, recoveriesBefore, resolved }: Recovered, node: string): object {
  const message =
    poison && resolved.source !== 'operator'
      ? `reclaimd: given up after ${recoveriesBefore} recoveries; ${reason}`
      : `reclaimd: its executor is ${verdict}; ${reason}`;
  return { message, reclaimd: { executor: executorId, verdict, reason, node, poison } };
}

function recordOf(orphan: Recovered): RecoveryRecord {
  const { queue, jobId, retryCount, startedOn, executorId, verdict, proof, policy, outcome, poison, reason, lastAliveAt } = orphan;
  return {
    queue,
    jobId,
    retryCount,
    startedOn,
    executorId,
    verdict,
    proof,
    policy,
    policySource: orphan.resolved.source,
    outcome,
    poison,
    reason,
    lastAliveAt,
  };
}
