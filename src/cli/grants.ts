import { quoteIdentifier } from '../postgres/database.ts';

/**
 * The least privileges of a role that runs the daemon; `migrate` and `install-ownership` are the owner's to run. In
 * pg-boss's schema it reads, and writes jobs as pg-boss's own fail() does: delete, and insert again.
 */
export function grantStatements({ role, schema, pgbossSchema }: { role: string; schema: string; pgbossSchema: string }): string {
  const to = quoteIdentifier(role);
  const own = quoteIdentifier(schema);
  const boss = quoteIdentifier(pgbossSchema);
  return [
    '-- Our own schema',
    `GRANT USAGE ON SCHEMA ${own} TO ${to};`,
    `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${own} TO ${to};`,
    `GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${own} TO ${to};`,
    '-- The audit is only added to',
    `REVOKE UPDATE, DELETE ON ${own}.audit, ${own}.audit_seal FROM ${to};`,
    `REVOKE INSERT, DELETE ON ${own}.audit_head FROM ${to};`,
    `REVOKE INSERT, UPDATE, DELETE ON ${own}.audit_checkpoint FROM ${to};`,
    '-- Rotation empties the older half of the ownership record',
    `GRANT TRUNCATE ON ${own}.attempt_a, ${own}.attempt_b TO ${to};`,
    '-- pg-boss: read everything, change jobs',
    `GRANT USAGE ON SCHEMA ${boss} TO ${to};`,
    `GRANT SELECT ON ALL TABLES IN SCHEMA ${boss} TO ${to};`,
    `GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${boss} TO ${to};`,
    `GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${boss} TO ${to};`,
    "-- New tables of partitioned queues: run by the role that pg-boss's workers use, who will own them",
    `ALTER DEFAULT PRIVILEGES IN SCHEMA ${boss} GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON TABLES TO ${to};`,
    `GRANT TRIGGER ON ALL TABLES IN SCHEMA ${boss} TO ${to};`,
    "-- Other roles' sessions, as evidence of life",
    `GRANT pg_read_all_stats TO ${to};`,
  ].join('\n');
}
