import { AsyncLocalStorage } from 'node:async_hooks';
import type { PgBoss } from 'pg-boss';
import { type Database, quoteIdentifier, type Sql } from '../postgres/database.ts';
import type { Logger } from '../runtime/logger.ts';
import { assertNotMoved } from './gate.ts';
import type { PgBossRelease } from './release.ts';
import { catalogName } from './schema-name.ts';

/** How pg-boss runs its statements on our connections, inside our transaction where there is one. */
export function asPgBossDb(sql: Sql) {
  return {
    executeSql: async (text: string, values?: unknown[]) => ({ rows: (await sql.query(text, values)) as Record<string, unknown>[] }),
  };
}

const joined = new AsyncLocalStorage<{ tx: Sql | undefined }>();

/**
 * A call of the client's within our transaction: with whatever it asks for beside, such as a queue that it does not know yet. Whoever waits
 * for a second connection while holding one may wait for somebody who does the same.
 */
export function within<T>(tx: Sql, call: (options: { db: ReturnType<typeof asPgBossDb> }) => Promise<T>): Promise<T> {
  const part: { tx: Sql | undefined } = { tx };
  // What the client goes on with by itself afterwards is no part of it.
  return joined
    .run(part, () => call({ db: asPgBossDb(tx) }))
    .finally(() => {
      part.tx = undefined;
    });
}

/**
 * How it runs what it does outside of such a call: supervision and the resolving of flows. Both change
 * jobs, and a pass may be long, so each statement makes sure that the schema is still this client's. Some bring their own
 * BEGIN and COMMIT: one that fails in between would leave its connection in a transaction that is over, for the next to
 * stumble upon.
 */
function asSupervisingDb(database: Database, assertStill: (sql: Sql) => Promise<void>) {
  return {
    executeSql: async (text: string, values?: unknown[]) => {
      const isOwnTransaction = /^\s*BEGIN\b/.test(text);
      const tx = joined.getStore()?.tx;
      if (tx && !isOwnTransaction) return asPgBossDb(tx).executeSql(text, values);
      const run = async (sql: Sql) => {
        await assertStill(sql);
        return asPgBossDb(sql).executeSql(text, values);
      };
      return isOwnTransaction ? database.transaction(run) : run(database);
    },
  };
}

/**
 * A pg-boss client that supervises, schedules, migrates and registers nothing: three reads at its start, then only the
 * calls we make, a pass of supervision among them. It holds no connection of its own.
 */
export async function startPassiveClient(
  release: PgBossRelease,
  { database, schemaSpelling, log }: { database: Database; schemaSpelling: string; log: Logger },
): Promise<PgBoss> {
  const { PgBoss } = await release.load();
  const quotedSchema = quoteIdentifier(catalogName(schemaSpelling));
  const boss = new PgBoss({
    db: asSupervisingDb(database, (sql) => assertNotMoved(sql, quotedSchema, release)),
    schema: schemaSpelling,
    supervise: false,
    schedule: false,
    migrate: false,
    createSchema: false,
    registerInstance: false,
  });
  boss.on('error', (error: Error) => log.debug({ error: error.message }, 'pg-boss client'));
  await boss.start();
  return boss;
}
