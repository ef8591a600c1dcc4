import { listJobTables } from '../ownership/queries.ts';
import { quoteIdentifier, type Sql } from '../postgres/database.ts';

/**
 * What the daemon and the commands do with each of our tables. A migration that adds one adds it here; null: nothing is granted.
 * The right to update one column is that to lock rows, which pruning does before it deletes them.
 */
export const OWN_TABLES: Readonly<Record<string, string | null>> = {
  archive: 'SELECT, INSERT, DELETE, UPDATE (id)',
  // Not when it was archived: for so long a unit of the audit stays.
  archive_file: 'SELECT, INSERT (run_id, class, node, directory, name, rows, bytes, sha256), DELETE',
  attempt: 'SELECT',
  // Rotation empties the older half.
  attempt_a: 'SELECT, INSERT, TRUNCATE',
  attempt_b: 'SELECT, INSERT, TRUNCATE',
  attempt_turn: 'SELECT, UPDATE',
  // Not its number, nor its time: those are the database's.
  audit: 'SELECT, INSERT (actor, action, target, outcome, reason, node, detail)',
  // Written by prune_audit alone.
  audit_checkpoint: 'SELECT',
  audit_head: 'SELECT, UPDATE',
  audit_seal: 'SELECT, INSERT',
  daemon: 'SELECT, INSERT, UPDATE, DELETE',
  executor: 'SELECT, INSERT, UPDATE, DELETE',
  fleet: 'SELECT, INSERT, UPDATE',
  flow_walk: 'SELECT, INSERT, UPDATE, DELETE',
  incident: 'SELECT, INSERT, UPDATE, DELETE',
  incident_occurrence: 'SELECT, INSERT, DELETE',
  incident_opening: 'SELECT, INSERT, UPDATE, DELETE',
  migration: 'SELECT',
  node: 'SELECT, INSERT, UPDATE, DELETE',
  node_command: 'SELECT, INSERT, UPDATE, DELETE',
  node_command_event: 'SELECT, INSERT',
  policy: 'SELECT, INSERT, UPDATE, DELETE',
  recovery: 'SELECT, INSERT, DELETE, UPDATE (id)',
  repair_preview: 'SELECT, INSERT, UPDATE, DELETE',
  restored: 'SELECT, INSERT, DELETE, UPDATE (restored_at)',
  retention_run: 'SELECT, INSERT, UPDATE, DELETE',
  stuck_job: 'SELECT, INSERT, UPDATE, DELETE',
  turn: 'SELECT, INSERT, UPDATE',
  unit_action: 'SELECT, INSERT, UPDATE, DELETE',
  unit_crash: 'SELECT, INSERT, DELETE, UPDATE (crashed_at)',
  unit_life: 'SELECT, INSERT, DELETE, UPDATE (seen_at, stop_requested)',
  workflow_action: 'SELECT, INSERT, DELETE, UPDATE (acted_at)',
  workflow_instance: 'SELECT, DELETE, UPDATE (updated_at)',
  workflow_step: 'SELECT, UPDATE',
};

export interface GrantOptions {
  role: string;
  schema: string;
  pgbossSchema: string;
  /** For a daemon that runs pg-boss's supervision: it writes counts and claims, and forgets instances. */
  supervise: boolean;
}

/**
 * The least privileges of a role that runs the daemon, for the tables that there are; `migrate` and `install-ownership` are
 * the owner's to run. In pg-boss's schema it reads, and writes jobs as pg-boss's own fail() does: delete, and insert again.
 */
export async function grantStatements(sql: Sql, { role, schema, pgbossSchema, supervise }: GrantOptions): Promise<string> {
  const to = quoteIdentifier(role);
  const own = quoteIdentifier(schema);
  const boss = quoteIdentifier(pgbossSchema);
  const grant = (privileges: string, of: string, tables: readonly string[]) =>
    `GRANT ${privileges} ON ${tables.map((table) => `${of}.${quoteIdentifier(table)}`).join(', ')} TO ${to};`;
  const present = await listTables(sql, schema);
  const leaves = (await listJobTables(sql, { schema, pgbossSchema })).map(({ name }) => name);
  const backsOff = supervise && (await hasColumn(sql, { schema: pgbossSchema, table: 'version', column: 'monitor_backoff_on' }));
  return [
    '-- Our own schema',
    `GRANT USAGE ON SCHEMA ${own} TO ${to};`,
    ...present.flatMap((table) => (OWN_TABLES[table] ? [grant(OWN_TABLES[table], own, [table])] : [])),
    `GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${own} TO ${to};`,
    '-- pg-boss: read its state, change jobs',
    `GRANT USAGE ON SCHEMA ${boss} TO ${to};`,
    grant('SELECT', boss, ['version', 'queue', 'subscription', 'instance']),
    grant('SELECT, INSERT, UPDATE, DELETE', boss, [...new Set(['job', ...leaves])]),
    grant('SELECT, DELETE', boss, ['job_dependency']),
    `GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${boss} TO ${to};`,
    ...(supervise
      ? [
          "-- RECLAIMD_PGBOSS_SUPERVISE: pg-boss's own claims and counts",
          grant('UPDATE', boss, ['queue']),
          ...(backsOff ? [grant('UPDATE (monitor_backoff_on)', boss, ['version'])] : []),
          grant('DELETE', boss, ['instance']),
        ]
      : []),
    '-- The triggers that record ownership, on tables that are not covered yet',
    grant('TRIGGER', boss, leaves),
    "-- New tables of partitioned queues: run by the role that pg-boss's workers use, who will own them",
    `ALTER DEFAULT PRIVILEGES IN SCHEMA ${boss} GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON TABLES TO ${to};`,
    "-- Other roles' sessions, as evidence of life: run by a superuser, or by a role with ADMIN OPTION on pg_read_all_stats",
    `GRANT pg_read_all_stats TO ${to};`,
  ].join('\n');
}

/** Views among them. */
async function listTables(sql: Sql, schema: string): Promise<string[]> {
  const rows = await sql.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v') ORDER BY c.relname`,
    [schema],
  );
  return rows.map(({ name }) => name);
}

async function hasColumn(sql: Sql, { schema, table, column }: { schema: string; table: string; column: string }): Promise<boolean> {
  const rows = await sql.query(
    `SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3 AND NOT a.attisdropped`,
    [schema, table, column],
  );
  return rows.length > 0;
}
