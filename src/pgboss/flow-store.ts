import type { PgBoss } from 'pg-boss';
import type { Sql } from '../postgres/database.ts';
import { asPgBossDb } from './client.ts';
import { countUnresolved, listDescendants, listLeaves, listPresent, listStuckChildren, releaseChild } from './flow-queries.ts';

/** pg-boss's flows: which children wait in vain, and what can be done about it. */
export function createFlowStore(boss: () => PgBoss) {
  return {
    listLeaves,
    listStuck: listStuckChildren,
    listDescendants,
    countUnresolved,
    listPresent,
    release: releaseChild,
    publish: (tx: Sql, event: string, data: object) => boss().publish(event, data, { db: asPgBossDb(tx) }),
    resolve: () => boss().resolveFlow(),
  };
}
