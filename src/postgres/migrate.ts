import { readdir, readFile } from 'node:fs/promises';
import { type Database, quoteIdentifier, type Sql } from './database.ts';

/** The schema in the database was made by a newer reclaimd than this one. */
export class SchemaIsNewer extends Error {
  override readonly name = 'SchemaIsNewer';
}

interface Migration {
  version: number;
  name: string;
  sql: string;
}

const FILE_NAME = /^(\d{4})_(\w+)\.sql$/;

async function readMigrations(): Promise<Migration[]> {
  const folder = new URL('./migrations/', import.meta.url);
  const files = (await readdir(folder)).filter((file) => FILE_NAME.test(file)).sort();
  return Promise.all(
    files.map(async (file) => {
      const [, number, name] = FILE_NAME.exec(file) as unknown as [string, string, string];
      return { version: Number(number), name, sql: await readFile(new URL(file, folder), 'utf8') };
    }),
  );
}

/** Version in the database (0: none yet) and the newest that this program knows. */
export async function schemaVersion(sql: Sql, schema: string): Promise<{ present: number; known: number }> {
  const known = (await readMigrations()).at(-1)?.version ?? 0;
  const [found] = await sql.query<{ ledger: string | null }>('SELECT to_regclass($1)::text AS ledger', [
    `${quoteIdentifier(schema)}.migration`,
  ]);
  if (!found?.ledger) return { present: 0, known };
  const [row] = await sql.query<{ version: number }>(
    `SELECT coalesce(max(version), 0)::int AS version FROM ${quoteIdentifier(schema)}.migration`,
  );
  return { present: row?.version ?? 0, known };
}

/** Refuses a schema that a newer program made: it may mean something that this one does not know. */
export function assertNotNewer({ present, known }: { present: number; known: number }, schema: string): void {
  if (present <= known) return;
  throw new SchemaIsNewer(
    `schema "${schema}" is at version ${present}, but this reclaimd knows only up to ${known}: run the newer reclaimd, or restore the schema that fits this one`,
  );
}

/**
 * Brings our own schema up to date, one program at a time (advisory lock), all or nothing.
 * @returns the names of the migrations that were applied; none when it was up to date.
 */
export async function migrate(database: Database, schema: string): Promise<string[]> {
  const migrations = await readMigrations();
  return database.transaction(async (tx) => {
    await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('reclaimd.migrate.' || $1, 0))`, [schema]);
    const version = await schemaVersion(tx, schema);
    assertNotNewer(version, schema);
    const due = migrations.filter((migration) => migration.version > version.present);
    if (due.length === 0) return [];
    const [exists] = await tx.query('SELECT FROM pg_namespace WHERE nspname = $1', [schema]);
    // Not IF NOT EXISTS: that demands the right to create schemas even where nothing is to be created.
    if (!exists) await tx.query(`CREATE SCHEMA ${quoteIdentifier(schema)}`);
    // Functions of definer's rights take this path along: unnamed, pg_temp would come first, and with it a caller's tables.
    await tx.query(`SELECT set_config('search_path', $1, true)`, [`${quoteIdentifier(schema)}, pg_temp`]);
    await tx.query(
      'CREATE TABLE IF NOT EXISTS migration (version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())',
    );
    for (const { version: number, name, sql } of due) {
      await tx.query(sql);
      await tx.query('INSERT INTO migration (version, name) VALUES ($1, $2)', [number, name]);
    }
    return due.map(({ name }) => name);
  });
}
