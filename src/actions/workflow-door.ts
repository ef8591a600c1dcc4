import { appendAudit } from '../audit/append.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { UniqueViolation } from '../postgres/errors.ts';
import type { FlowStore, JobRef } from './flow-store.ts';
import type { JobStore } from './job-store.ts';

/** Who wants it, and why: what the audit says. */
export interface WorkflowOrder {
  actor: string;
  /** Null for what nobody asked for. */
  reason: string | null;
  detail?: object;
}

/** Refused as a value: what was planned for is not there any more, or `tooMany` wait behind it for one transaction. */
export type WorkflowChange = { done: true; jobs: string[] } | { done: false; moved: string; tooMany?: true };

export interface WorkflowDoor {
  /** A failed parent runs once more, a cancelled one waits for its run again; its children follow when it completes. */
  retryParent(
    tx: Sql,
    order: WorkflowOrder,
    parent: JobRef & { retryCount: number; state: 'failed' | 'cancelled' },
  ): Promise<WorkflowChange>;
  /** Cancels those of the children that are still stuck, and every job that waits for them: all of it, or nothing. */
  cancelDescendants(tx: Sql, order: WorkflowOrder, target: string, children: readonly JobRef[]): Promise<WorkflowChange>;
  /** One stuck child runs as if the parents that keep it had completed; living parents are still waited for. */
  unblockChild(tx: Sql, order: WorkflowOrder, child: JobRef & { retryCount: number }): Promise<WorkflowChange>;
  /**
   * Tells the children of parents that completed so long ago. pg-boss's call joins no transaction, so what is about to be
   * resolved is audited before, and what was, after.
   * @returns the parents whose children know now.
   */
  resolveCompleted(database: Database, order: WorkflowOrder, afterSeconds: number): Promise<string[]>;
}

/** What one transaction may cancel. */
export const MOST_CANCELLED = 100_000;
/** Of one statement, and of one audit event. */
const BATCH = 5_000;
/** A turn's share: a resolver that was down for long is caught up with over several. */
const MOST_RESOLVED = 10_000;

const nameOf = ({ queue, jobId }: JobRef) => `${queue}/${jobId}`;

function* batchesOf<T>(all: readonly T[]): Generator<T[]> {
  for (let first = 0; first < all.length; first += BATCH) yield all.slice(first, first + BATCH);
}

/** The one door through which flows are changed: locked, looked at again, fenced, audited in the caller's transaction. */
export function createWorkflowDoor({ jobs, flows, node }: { jobs: JobStore; flows: FlowStore; node: string }): WorkflowDoor {
  return {
    retryParent: async (tx, order, parent) => {
      const target = nameOf(parent);
      const [row] = await jobs.readJobs(tx, [parent], { lock: true });
      if (!row) return { done: false, moved: `${target} is gone` };
      if (row.state !== parent.state || row.retryCount !== parent.retryCount)
        return { done: false, moved: `${target} is ${row.state} (attempt ${row.retryCount}) by now` };
      const again = () => (row.state === 'failed' ? jobs.retry : jobs.resume)(tx, parent.queue, [parent]);
      if (!(await hasRoom(tx, again)))
        return { done: false, moved: `another job of ${parent.queue} is in its place, and the queue's policy has room for one only` };
      const state = (await jobs.readStates(tx, [parent])).get(target)?.state;
      if (state !== 'retry' && state !== 'created') throw new Error(`${target} is ${state ?? 'gone'} after its retry: nothing was changed`);
      await jobs.wake(tx, parent.queue);
      await audit(tx, order, 'workflow_retry_parent', target, [`${target}:${row.retryCount}`]);
      return { done: true, jobs: [target] };
    },

    cancelDescendants: async (tx, order, target, children) => {
      await flows.lockEndedParents(tx, children);
      const first = await listBelow(tx, children);
      if (first.length > MOST_CANCELLED)
        return { done: false, tooMany: true, moved: `more than ${MOST_CANCELLED} jobs wait behind ${target}` };
      for (const batch of batchesOf(first.toSorted(byName))) await flows.lock(tx, batch);
      // Again under the locks: a child may have been let go in between.
      const locked = new Set(first.map(nameOf));
      const below = (await listBelow(tx, children)).filter((job) => locked.has(nameOf(job)));
      if (below.length === 0) return { done: false, moved: `nothing waits in vain behind ${target} any more` };
      for (const [queue, ofQueue] of Map.groupBy(below, (job) => job.queue))
        for (const batch of batchesOf(ofQueue))
          await jobs.cancel(
            tx,
            queue,
            batch.map(({ jobId, retryCount }) => ({ jobId, retryCount, active: false })),
          );
      const cancelled = below.map(nameOf).sort();
      for (const batch of batchesOf(cancelled)) await audit(tx, order, 'workflow_cancel_descendants', target, batch);
      return { done: true, jobs: cancelled };
    },

    unblockChild: async (tx, order, child) => {
      const target = nameOf(child);
      // The parents first, as pg-boss's resolver does. One that came back to life would count the child down once more.
      await flows.lockEndedParents(tx, [child]);
      const [row] = await jobs.readJobs(tx, [child], { lock: true });
      const [stuck] = await flows.listStuck(tx, [child], { ofEach: 1 });
      if (!row || !stuck || row.retryCount !== child.retryCount)
        return { done: false, moved: `${target} does not wait in vain any more: it is ${row?.state ?? 'gone'}` };
      if (await flows.release(tx, child)) await jobs.wake(tx, child.queue);
      await audit(tx, order, 'workflow_unblock', target, [target]);
      return { done: true, jobs: [target] };
    },

    resolveCompleted: async (database, order, afterSeconds) => {
      const before = await listUnresolved(database, afterSeconds);
      if (before.length === 0) return [];
      for (const batch of batchesOf(before))
        await audit(database, { ...order, detail: { ...order.detail, intent: true } }, 'workflow_resolve', 'flows', batch, 'unknown');
      await flows.resolve();
      const left = new Set(await listUnresolved(database, afterSeconds));
      const resolved = before.filter((name) => !left.has(name));
      for (const batch of batchesOf(resolved)) await audit(database, order, 'workflow_resolve', 'flows', batch);
      return resolved;
    },
  };

  async function listUnresolved(sql: Sql, afterSeconds: number): Promise<string[]> {
    const names: string[] = [];
    for (const queues of await flows.listLeaves(sql))
      names.push(...(await flows.listUnresolved(sql, queues, afterSeconds, MOST_RESOLVED)).map(nameOf));
    return names;
  }

  /** One more than may be cancelled says that there are too many. */
  async function listBelow(tx: Sql, children: readonly JobRef[]) {
    const still = new Set<string>();
    for (const batch of batchesOf(children)) for (const child of await flows.listStuck(tx, batch, { ofEach: 1 })) still.add(nameOf(child));
    const roots = children.filter((child) => still.has(nameOf(child))).map((child) => ({ ...child, root: 0 }));
    return flows.listDescendants(tx, roots, MOST_CANCELLED + 1);
  }

  function audit(
    tx: Sql,
    { actor, reason, detail }: WorkflowOrder,
    action: string,
    target: string,
    jobNames: readonly string[],
    outcome: 'done' | 'unknown' = 'done',
  ): Promise<void> {
    return appendAudit(tx, { actor, action, target, outcome, reason, node, detail: { ...detail, jobs: jobNames } });
  }
}

const byName = (a: JobRef, b: JobRef) => (nameOf(a) < nameOf(b) ? -1 : 1);

/** Whether a queue's policy lets the job back in; where it does not, the transaction goes on without. */
async function hasRoom(tx: Sql, change: () => Promise<void>): Promise<boolean> {
  await tx.query('SAVEPOINT change');
  try {
    await change();
  } catch (error) {
    if (!(error instanceof UniqueViolation)) throw error;
    await tx.query('ROLLBACK TO SAVEPOINT change');
    return false;
  }
  await tx.query('RELEASE SAVEPOINT change');
  return true;
}
