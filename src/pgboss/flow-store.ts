import type { PgBoss } from 'pg-boss';
import type { Sql } from '../postgres/database.ts';
import { within } from './client.ts';
import {
  countUnresolved,
  listChildren,
  listCopies,
  listDescendants,
  listLeaves,
  listStuckChildren,
  listSubscribers,
  listUnresolved,
  listWaiting,
  lockEndedParents,
  pageBlocked,
  releaseChild,
} from './flow-queries.ts';
import { lockJobs } from './queries.ts';

/** pg-boss's flows: which children wait in vain, and what can be done about it. */
export function createFlowStore(boss: () => PgBoss, assertNotMoved: (sql: Sql) => Promise<void>) {
  return {
    listLeaves,
    listWaiting,
    pageBlocked,
    listStuck: listStuckChildren,
    listChildren,
    listDescendants,
    listCopies,
    listUnresolved,
    countUnresolved,
    lock: async (tx: Sql, jobs: Parameters<typeof lockJobs>[1]) => {
      await lockJobs(tx, jobs);
    },
    lockEndedParents,
    release: releaseChild,
    listSubscribers,
    // As publish() does, which asks for the subscribers on a connection of its own, from within our transaction.
    publish: async (tx: Sql, queue: string, data: readonly object[]) => {
      await assertNotMoved(tx);
      const jobs = data.map((one) => ({ data: one }));
      const ids = await within(tx, (on) => boss().insert(queue, jobs, { ...on, returnId: true }));
      return ids?.length ?? 0;
    },
    resolve: () => boss().resolveFlow(),
  };
}
