import { quoteIdentifier } from '../postgres/database.ts';

export interface OwnershipTarget {
  /** Our schema. */
  schema: string;
  /** pg-boss's schema as the catalog has it. */
  pgbossSchema: string;
}

const FUNCTION = 'record_attempts';

/** Differs by reclaimd schema, so that two of them may watch the same pg-boss. */
export function triggerName(schema: string): string {
  return `${schema}_${FUNCTION}`.slice(0, 63);
}

/**
 * The function behind the triggers. It runs as its owner, so that workers need no right on our schema, and swallows
 * every error: a fetch must never fail, or wait long, because of us.
 *
 * A row became active in this statement when its started_on is this transaction's time: touching or completing an
 * active job leaves started_on alone.
 */
export function createFunctionSql({ schema, pgbossSchema }: OwnershipTarget): string {
  const own = quoteIdentifier(schema);
  const boss = quoteIdentifier(pgbossSchema);
  const insertInto = (table: string) => `
      INSERT INTO ${own}.${table} (queue, job_id, retry_count, application_name, started_on)
      SELECT n.name, n.id, n.retry_count, current_setting('application_name'), n.started_on
      FROM now_rows n WHERE n.state = 'active' AND n.started_on = ${boss}.job_now();`;
  return `
CREATE OR REPLACE FUNCTION ${own}.${FUNCTION}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $reclaimd$
BEGIN
  PERFORM FROM now_rows n WHERE n.state = 'active' AND n.started_on = ${boss}.job_now();
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF (SELECT t.current = 'a' FROM ${own}.attempt_turn t) THEN${insertInto('attempt_a')}
  ELSE${insertInto('attempt_b')}
  END IF;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END
$reclaimd$`;
}

export function createTriggerSql({ schema, pgbossSchema }: OwnershipTarget, table: string): string {
  return `CREATE TRIGGER ${quoteIdentifier(triggerName(schema))} AFTER UPDATE ON ${quoteIdentifier(pgbossSchema)}.${quoteIdentifier(table)}
    REFERENCING NEW TABLE AS now_rows FOR EACH STATEMENT EXECUTE FUNCTION ${quoteIdentifier(schema)}.${FUNCTION}()`;
}

export function dropTriggerSql({ schema, pgbossSchema }: OwnershipTarget, table: string): string {
  return `DROP TRIGGER IF EXISTS ${quoteIdentifier(triggerName(schema))} ON ${quoteIdentifier(pgbossSchema)}.${quoteIdentifier(table)}`;
}

export function dropFunctionSql({ schema }: OwnershipTarget): string {
  return `DROP FUNCTION IF EXISTS ${quoteIdentifier(schema)}.${FUNCTION}()`;
}
