import type { Sql } from '../postgres/database.ts';
import { type OwnershipTarget, triggerName } from './trigger.ts';

export interface JobTable {
  name: string;
  /** Our trigger is there, enabled, and calls our function. */
  covered: boolean;
}

/** pg-boss updates its leaf tables directly, so each of them needs the trigger. */
export function listJobTables(sql: Sql, { schema, pgbossSchema }: OwnershipTarget): Promise<JobTable[]> {
  return sql.query<JobTable>(
    `SELECT c.relname AS name, EXISTS (
       SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
       WHERE t.tgrelid = c.oid AND t.tgname = $3 AND t.tgenabled IN ('O', 'A') AND f.nspname = $1 AND p.proname = 'record_attempts'
     ) AS covered
     FROM pg_class root JOIN pg_namespace n ON n.oid = root.relnamespace
       JOIN pg_inherits i ON i.inhparent = root.oid JOIN pg_class c ON c.oid = i.inhrelid
     WHERE n.nspname = $2 AND root.relname = 'job' AND root.relkind = 'p'
     ORDER BY c.relname`,
    [schema, pgbossSchema, triggerName(schema)],
  );
}

export async function functionExists(sql: Sql, { schema }: OwnershipTarget): Promise<boolean> {
  const rows = await sql.query(
    `SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = 'record_attempts'`,
    [schema],
  );
  return rows.length > 0;
}
