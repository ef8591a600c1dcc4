import type { PgBoss } from 'pg-boss';
import type { Database, Sql } from '../postgres/database.ts';
import type { Logger } from '../runtime/logger.ts';
import type { PgBossRelease } from './release.ts';

/** How pg-boss runs its statements on our connections, inside our transaction where there is one. */
export function asPgBossDb(sql: Sql) {
  return {
    executeSql: async (text: string, values?: unknown[]) => ({ rows: (await sql.query(text, values)) as Record<string, unknown>[] }),
  };
}

/**
 * As above, for statements of supervision, which bring their own BEGIN and COMMIT: one that fails in between would leave
 * its connection in a transaction that is over, for the next to stumble upon.
 */
function asSupervisingDb(database: Database) {
  const plain = asPgBossDb(database);
  return {
    executeSql: (text: string, values?: unknown[]) =>
      /^\s*BEGIN\b/.test(text) ? database.transaction((tx) => asPgBossDb(tx).executeSql(text, values)) : plain.executeSql(text, values),
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
  const boss = new PgBoss({
    db: asSupervisingDb(database),
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
