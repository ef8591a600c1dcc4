import { appendAudit } from '../audit/append.ts';
import type { Sql } from '../postgres/database.ts';
import type { FlowStore, JobRef } from './flow-store.ts';
import type { JobStore } from './job-store.ts';

/** Who wants it, and why: what the audit says. */
export interface WorkflowOrder {
  actor: string;
  /** Null for what nobody asked for. */
  reason: string | null;
  detail?: object;
}

/** Refused as a value: what was planned for is not there any more. */
export type WorkflowChange = { done: true; jobs: string[] } | { done: false; moved: string };

export interface WorkflowDoor {
  /** A failed parent runs once more, a cancelled one waits for its run again; its children follow when it completes. */
  retryParent(
    tx: Sql,
    order: WorkflowOrder,
    parent: JobRef & { retryCount: number; state: 'failed' | 'cancelled' },
  ): Promise<WorkflowChange>;
  /** Cancels those of the children that are still stuck, and every job that waits for them. */
  cancelDescendants(tx: Sql, order: WorkflowOrder, target: string, children: readonly JobRef[]): Promise<WorkflowChange>;
  /** One stuck child runs as if the parents that keep it had completed; living parents are still waited for. */
  unblockChild(tx: Sql, order: WorkflowOrder, child: JobRef & { retryCount: number }): Promise<WorkflowChange>;
}

/** What one transaction may cancel; a wider flow takes several. */
export const MOST_CANCELLED = 10_000;

const nameOf = ({ queue, jobId }: JobRef) => `${queue}/${jobId}`;

/** The one door through which flows are changed: locked, looked at again, fenced, audited in the caller's transaction. */
export function createWorkflowDoor({ jobs, flows, node }: { jobs: JobStore; flows: FlowStore; node: string }): WorkflowDoor {
  return {
    retryParent: async (tx, order, parent) => {
      const target = nameOf(parent);
      const [row] = await jobs.readJobs(tx, [parent], { lock: true });
      if (!row) return { done: false, moved: `${target} is gone` };
      if (row.state !== parent.state || row.retryCount !== parent.retryCount)
        return { done: false, moved: `${target} is ${row.state} (attempt ${row.retryCount}) by now` };
      await (row.state === 'failed' ? jobs.retry(tx, parent.queue, [parent]) : jobs.resume(tx, parent.queue, [parent]));
      const state = (await jobs.readStates(tx, [parent])).get(target)?.state;
      if (state !== 'retry' && state !== 'created') throw new Error(`${target} is ${state ?? 'gone'} after its retry: nothing was changed`);
      await jobs.wake(tx, parent.queue);
      await audit(tx, order, 'workflow_retry_parent', target, [`${target}:${row.retryCount}`]);
      return { done: true, jobs: [target] };
    },

    cancelDescendants: async (tx, order, target, children) => {
      const first = await listBelow(tx, children);
      const locked = await jobs.readJobs(tx, first, { lock: true });
      const held = new Set(locked.map(nameOf));
      // Again under the locks: a parent may have come back to life in between.
      const below = (await listBelow(tx, children)).filter((job) => held.has(nameOf(job)));
      if (below.length === 0) return { done: false, moved: `nothing waits in vain behind ${target} any more` };
      for (const [queue, ofQueue] of Map.groupBy(below, (job) => job.queue))
        await jobs.cancel(
          tx,
          queue,
          ofQueue.map(({ jobId, retryCount }) => ({ jobId, retryCount, active: false })),
        );
      const cancelled = below.map(nameOf);
      await audit(tx, order, 'workflow_cancel_descendants', target, cancelled);
      return { done: true, jobs: cancelled };
    },

    unblockChild: async (tx, order, child) => {
      const target = nameOf(child);
      const [row] = await jobs.readJobs(tx, [child], { lock: true });
      const [stuck] = await flows.listStuck(tx, [child.queue], 1, [child.jobId]);
      if (!row || !stuck || row.retryCount !== child.retryCount)
        return { done: false, moved: `${target} does not wait in vain any more: it is ${row?.state ?? 'gone'}` };
      if (await flows.release(tx, child)) await jobs.wake(tx, child.queue);
      await audit(tx, order, 'workflow_unblock', target, [target]);
      return { done: true, jobs: [target] };
    },
  };

  async function listBelow(tx: Sql, children: readonly JobRef[]) {
    const still = new Set<string>();
    for (const [queue, ofQueue] of Map.groupBy(children, (child) => child.queue)) {
      const ids = ofQueue.map(({ jobId }) => jobId);
      for (const child of await flows.listStuck(tx, [queue], ids.length, ids)) still.add(nameOf(child));
    }
    const roots = children.filter((child) => still.has(nameOf(child))).map((child) => ({ ...child, root: 0 }));
    return flows.listDescendants(tx, roots, MOST_CANCELLED);
  }

  function audit(
    tx: Sql,
    { actor, reason, detail }: WorkflowOrder,
    action: string,
    target: string,
    jobNames: readonly string[],
  ): Promise<void> {
    return appendAudit(tx, { actor, action, target, outcome: 'done', reason, node, detail: { ...detail, jobs: jobNames } });
  }
}
