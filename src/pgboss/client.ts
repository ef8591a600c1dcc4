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
 * A pg-boss client that supervises, schedules, migrates and registers nothing: three reads at its start, then only the
 * calls we make. It holds no connection of its own.
 */
export async function startPassiveClient(
  release: PgBossRelease,
  { database, schemaSpelling, log }: { database: Database; schemaSpelling: string; log: Logger },
): Promise<PgBoss> {
  const { PgBoss } = await release.load();
  const boss = new PgBoss({
    db: asPgBossDb(database),
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
