import type { Sql } from '../postgres/database.ts';
import { FUNCTION, type OwnershipTarget, RETIRED_FUNCTION, triggerName } from './trigger.ts';

export interface JobTable {
  name: string;
  /** Our trigger is there, enabled, and calls our function. */
  covered: boolean;
}

/** pg-boss updates its leaf tables directly, so each of them needs the trigger; without partitioning there is one table. */
export function listJobTables(sql: Sql, { schema, pgbossSchema }: OwnershipTarget): Promise<JobTable[]> {
  return sql.query<JobTable>(
    `SELECT c.relname AS name, EXISTS (
       SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
       WHERE t.tgrelid = c.oid AND t.tgname = $3 AND t.tgenabled IN ('O', 'A') AND f.nspname = $1 AND p.proname = $4
     ) AS covered
     FROM pg_class root JOIN pg_namespace n ON n.oid = root.relnamespace
       LEFT JOIN pg_inherits i ON i.inhparent = root.oid JOIN pg_class c ON c.oid = coalesce(i.inhrelid, root.oid) AND c.relkind = 'r'
     WHERE n.nspname = $2 AND root.relname = 'job' AND root.relkind IN ('p', 'r')
     ORDER BY c.relname`,
    [schema, pgbossSchema, triggerName(schema), FUNCTION],
  );
}

export async function functionExists(sql: Sql, schema: string): Promise<boolean> {
  return (await listFunctions(sql, schema)).has(FUNCTION);
}

export async function listFunctions(sql: Sql, schema: string): Promise<Set<string>> {
  const rows = await sql.query<{ name: string }>(
    `SELECT p.proname AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname IN ($2, $3)`,
    [schema, FUNCTION, RETIRED_FUNCTION],
  );
  return new Set(rows.map((row) => row.name));
}

/**
 * Whether the turn has its row. Names every table and column that the trigger writes and the sweep reads, so that it
 * throws UndefinedObject, with the name, when one of them is gone.
 */
export async function isTurnThere(sql: Sql): Promise<boolean> {
  const rows = await sql.query(
    `SELECT t.current FROM attempt_turn t LEFT JOIN (
       SELECT queue, job_id, retry_count, application_name, started_on FROM attempt_a WHERE false
       UNION ALL SELECT queue, job_id, retry_count, application_name, started_on FROM attempt_b WHERE false
       UNION ALL SELECT queue, job_id, retry_count, application_name, started_on FROM attempt WHERE false
     ) record ON true`,
  );
  return rows.length > 0;
}

export async function restoreTurn(sql: Sql): Promise<void> {
  await sql.query('INSERT INTO attempt_turn DEFAULT VALUES ON CONFLICT DO NOTHING');
}
