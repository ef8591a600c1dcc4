import { appendAudit } from '../audit/append.ts';
import type { Sql } from '../postgres/database.ts';
import type { Attempt, JobStore } from './job-store.ts';
import { type Nomination, type Outcome, rescueAttempts } from './rescue.ts';

/** Who wants it, and why: what the audit says. */
export interface RepairOrder {
  actor: string;
  action: string;
  /** What the jobs have in common. */
  target: string;
  reason: string;
  /** Part of what was planned cannot be done any more: `detail` says which. */
  partial: boolean;
  detail: object;
}

/** One change of one job, whose row the caller has locked and found to be as planned. */
export type JobChange =
  | { kind: 'rescue'; nomination: Nomination }
  | { kind: 'retry' | 'resume' | 'cancel'; job: Pick<Attempt, 'queue' | 'jobId' | 'retryCount'> & { active: boolean } };

export interface RepairDoor {
  /**
   * Acts, records and audits within the given transaction: one audit event for all of it, and all of it or nothing.
   * @returns the state of each job after, by `QUEUE/JOB-ID`.
   */
  repair(tx: Sql, order: RepairOrder, changes: readonly JobChange[]): Promise<Map<string, string>>;
}

/** The door through which a person's repairs change jobs. */
export function createRepairDoor(jobs: JobStore, node: string): RepairDoor {
  return {
    repair: async (tx, order, changes) => {
      const effects: { job: string; outcome: Outcome | 'retry' | 'resume' | 'cancel' }[] = [];
      for (const [queue, ofQueue] of Map.groupBy(changes, (change) => jobOf(change).queue)) {
        effects.push(...(await rescue(tx, queue, ofQueue)));
        for (const kind of ['retry', 'resume', 'cancel'] as const) {
          const some = ofQueue.flatMap((change) => (change.kind === kind ? [change.job] : []));
          if (some.length === 0) continue;
          await jobs[kind](tx, queue, some);
          if (kind !== 'cancel') await jobs.wake(tx, queue);
          effects.push(...some.map((job) => ({ job: attemptOf(job), outcome: kind })));
        }
      }
      const { partial, detail, ...event } = order;
      await appendAudit(tx, { ...event, node, outcome: partial ? 'partial' : 'done', detail: { ...detail, effects } });
      return statesAfter(tx, changes);
    },
  };

  async function rescue(tx: Sql, queue: string, changes: readonly JobChange[]) {
    const nominations = changes.flatMap((change) => (change.kind === 'rescue' ? [change.nomination] : []));
    if (nominations.length === 0) return [];
    const { recovered } = await rescueAttempts({ jobs, node }, tx, queue, nominations);
    return recovered.map((orphan) => ({
      job: attemptOf(orphan),
      executor: orphan.executorId,
      policy: orphan.policy,
      outcome: orphan.outcome,
    }));
  }

  /** The rows were locked and as planned, so everything must have worked; did something not, nothing of it stays. */
  async function statesAfter(tx: Sql, changes: readonly JobChange[]): Promise<Map<string, string>> {
    const read = await jobs.readStates(tx, changes.map(jobOf));
    const states = new Map([...read].map(([target, { state }]) => [target, state]));
    for (const change of changes) {
      const { queue, jobId } = jobOf(change);
      const state = states.get(`${queue}/${jobId}`);
      if (!isDone(change, state)) throw new Error(`${queue}/${jobId} is ${state ?? 'gone'} after the ${change.kind}: nothing was changed`);
    }
    return states;
  }
}

const jobOf = (change: JobChange) => (change.kind === 'rescue' ? change.nomination : change.job);
const attemptOf = ({ queue, jobId, retryCount }: { queue: string; jobId: string; retryCount: number }) => `${queue}/${jobId}:${retryCount}`;

function isDone(change: JobChange, state: string | undefined): boolean {
  if (change.kind === 'rescue')
    return state === 'retry' || state === 'failed' || (state === 'active' && change.nomination.resolved.policy === 'hold');
  return state === { retry: 'retry', resume: 'created', cancel: 'cancelled' }[change.kind];
}
