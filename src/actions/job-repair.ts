import { appendAudit } from '../audit/append.ts';
import type { Sql } from '../postgres/database.ts';
import { DatabaseError, UniqueViolation } from '../postgres/errors.ts';
import { type Attempt, type JobStore, nameAttempt } from './job-store.ts';
import { type Nomination, rescueAttempts } from './rescue.ts';

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

/** One change of one job, whose row the caller has locked and found to be as planned; `after` is the state that was shown. */
export type JobChange = { after: string } & (
  | { kind: 'rescue'; nomination: Nomination }
  | { kind: 'retry' | 'resume' | 'cancel'; job: Pick<Attempt, 'queue' | 'jobId' | 'retryCount'> & { active: boolean } }
);

/** What became of a job: its state now, or why nothing of it was changed. */
export type JobEnd = { state: string; error?: undefined } | { error: string };

export interface RepairDoor {
  /**
   * Acts, records and audits within the given transaction, with one audit event for all of it. A job that cannot be changed
   * as planned is left as it was and keeps no other from its change; any other fault is thrown, and then nothing stays.
   * @returns what became of each job, by `QUEUE/JOB-ID`.
   */
  repair(tx: Sql, order: RepairOrder, changes: readonly JobChange[]): Promise<Map<string, JobEnd>>;
}

const KINDS = ['rescue', 'retry', 'resume', 'cancel'] as const;

/** A job was not what the plan says after its change. */
class ChangeMissed extends Error {
  override readonly name = 'ChangeMissed';
}

/** The door through which a person's repairs change jobs. */
export function createRepairDoor(jobs: JobStore, node: string): RepairDoor {
  return {
    repair: async (tx, order, changes) => {
      const ends = new Map<string, JobEnd>();
      const effects: object[] = [];
      for (const [queue, ofQueue] of Map.groupBy(changes, (change) => jobOf(change).queue))
        for (const kind of KINDS) {
          const some = ofQueue.filter((change) => change.kind === kind);
          for (const done of some.length === 0 ? [] : await changeTogether(tx, queue, some)) {
            for (const [target, end] of done.ends) ends.set(target, end);
            effects.push(...done.effects);
          }
        }
      const failed = [...ends].flatMap(([job, { error }]) => (error === undefined ? [] : [{ job, error }]));
      const { partial, detail, ...event } = order;
      await appendAudit(tx, {
        ...event,
        node,
        outcome: effects.length === 0 ? 'failed' : partial || failed.length > 0 ? 'partial' : 'done',
        detail: { ...detail, effects, ...(failed.length > 0 ? { failed } : {}) },
      });
      return ends;
    },
  };

  /** Together; where that fails because of one of them, one by one. */
  async function changeTogether(tx: Sql, queue: string, changes: readonly JobChange[]): Promise<Changed[]> {
    const together = await tryChange(tx, queue, changes);
    if (typeof together !== 'string') return [together];
    const each: Changed[] = [];
    for (const change of changes) {
      const alone = changes.length === 1 ? together : await tryChange(tx, queue, [change]);
      const target = targetOf(change);
      each.push(typeof alone === 'string' ? { ends: new Map([[target, { error: alone }]]), effects: [] } : alone);
    }
    return each;
  }

  /** @returns why one of them cannot be changed: then none of them was. */
  async function tryChange(tx: Sql, queue: string, changes: readonly JobChange[]): Promise<Changed | string> {
    await tx.query('SAVEPOINT change');
    try {
      const effects = await change(tx, queue, changes);
      const ends = await endsOf(tx, changes);
      await tx.query('RELEASE SAVEPOINT change');
      return { ends, effects };
    } catch (error) {
      const why = whyOfTheJob(error);
      if (why === undefined) throw error;
      await tx.query('ROLLBACK TO SAVEPOINT change');
      return why;
    }
  }

  async function change(tx: Sql, queue: string, changes: readonly JobChange[]): Promise<object[]> {
    const nominations = changes.flatMap((one) => (one.kind === 'rescue' ? [one.nomination] : []));
    if (nominations.length > 0) {
      const { recovered } = await rescueAttempts({ jobs, node }, tx, queue, nominations);
      return recovered.map(({ executorId, policy, outcome, poison, ...orphan }) => ({
        job: nameAttempt(orphan),
        executor: executorId,
        policy,
        outcome,
        poison,
      }));
    }
    const effects: object[] = [];
    for (const kind of ['retry', 'resume', 'cancel'] as const) {
      const some = changes.flatMap((one) => (one.kind === kind ? [one.job] : []));
      if (some.length === 0) continue;
      await jobs[kind](tx, queue, some);
      if (kind !== 'cancel') await jobs.wake(tx, queue);
      effects.push(...some.map((job) => ({ job: nameAttempt(job), outcome: kind })));
    }
    return effects;
  }

  async function endsOf(tx: Sql, changes: readonly JobChange[]): Promise<Map<string, JobEnd>> {
    const states = await jobs.readStates(tx, changes.map(jobOf));
    return new Map(
      changes.map((one): [string, JobEnd] => {
        const target = targetOf(one);
        const state = states.get(target)?.state ?? 'gone';
        if (state !== one.after) throw new ChangeMissed(`it would have been ${state} after the ${one.kind}, not ${one.after}`);
        return [target, { state }];
      }),
    );
  }
}

interface Changed {
  ends: Map<string, JobEnd>;
  effects: object[];
}

/** Undefined for a fault that is not about one job, but about all that follow. */
function whyOfTheJob(error: unknown): string | undefined {
  if (error instanceof UniqueViolation) return 'another job has the only place that its queue leaves for it';
  if (error instanceof ChangeMissed) return error.message;
  return error instanceof DatabaseError && error.code?.startsWith('23') ? error.message : undefined;
}

const jobOf = (change: JobChange) => (change.kind === 'rescue' ? change.nomination : change.job);
const targetOf = (change: JobChange) => `${jobOf(change).queue}/${jobOf(change).jobId}`;
