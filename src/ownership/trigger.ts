import { createHash } from 'node:crypto';
import { quoteIdentifier } from '../postgres/database.ts';

export interface OwnershipTarget {
  /** Our schema. */
  schema: string;
  /** pg-boss's schema as the catalog has it. */
  pgbossSchema: string;
}

export const FUNCTION = 'record_attempts';
/** Its name once its removal has begun, so that nobody puts new triggers on it. */
export const RETIRED_FUNCTION = 'record_attempts_retired';

const LONGEST_NAME_BYTES = 63;

/** Differs by reclaimd schema, so that two of them may watch the same pg-boss; Postgres would cut a longer one off. */
export function triggerName(schema: string): string {
  const name = `${schema}_${FUNCTION}`;
  if (Buffer.byteLength(name) <= LONGEST_NAME_BYTES) return name;
  return `${FUNCTION}_${createHash('sha256').update(schema).digest('hex').slice(0, 32)}`;
}

/**
 * The function behind the triggers. It runs as its owner, so that workers need no right on our schema, and swallows
 * every error: a fetch must never fail, or wait long, because of us.
 *
 * A row became active in this statement when its started_on is this transaction's time: touching or completing an
 * active job leaves started_on alone. pg_catalog's now() is what pg-boss's job_now() returns; that one is pg-boss's
 * owner's to replace, and what it became would run with our rights. For the same reason other schemas' tables are
 * ignored: whoever may look into our schema could put this function on a table of its own making.
 *
 * Whichever table is locked (rotation empties one at a time), the other will do: readers read both.
 */
export function createFunctionSql({ schema, pgbossSchema }: OwnershipTarget): string {
  const own = quoteIdentifier(schema);
  const insertInto = (table: string) => `
      INSERT INTO ${own}.${table} (queue, job_id, retry_count, application_name, started_on)
      SELECT n.name, n.id, n.retry_count, current_setting('application_name'), n.started_on
      FROM now_rows n WHERE n.state = 'active' AND n.started_on = now();`;
  return `
CREATE OR REPLACE FUNCTION ${own}.${FUNCTION}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $reclaimd$
DECLARE
  current_table text;
BEGIN
  IF TG_TABLE_SCHEMA <> ${quoteText(pgbossSchema)} THEN
    RETURN NULL;
  END IF;
  PERFORM FROM now_rows n WHERE n.state = 'active' AND n.started_on = now();
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  SELECT t.current INTO current_table FROM ${own}.attempt_turn t;
  IF current_table = 'a' THEN${insertInto('attempt_a')}
  ELSE${insertInto('attempt_b')}
  END IF;
  RETURN NULL;
EXCEPTION
  WHEN lock_not_available THEN
    BEGIN
      IF current_table = 'a' THEN${insertInto('attempt_b')}
      ELSE${insertInto('attempt_a')}
      END IF;
      RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
      RETURN NULL;
    END;
  WHEN OTHERS THEN
    RETURN NULL;
END
$reclaimd$`;
}

/** Replaces one of that name that is disabled or calls something else; waits for writers, but not for readers. */
export function createTriggerSql(target: OwnershipTarget, table: string): string {
  return `CREATE OR REPLACE TRIGGER ${quoteIdentifier(triggerName(target.schema))} AFTER UPDATE ON ${leafTable(target, table)}
    REFERENCING NEW TABLE AS now_rows FOR EACH STATEMENT EXECUTE FUNCTION ${quoteIdentifier(target.schema)}.${FUNCTION}()`;
}

export function dropTriggerSql(target: OwnershipTarget, table: string): string {
  return `DROP TRIGGER IF EXISTS ${quoteIdentifier(triggerName(target.schema))} ON ${leafTable(target, table)}`;
}

export function retireFunctionSql({ schema }: OwnershipTarget): string {
  return `ALTER FUNCTION ${quoteIdentifier(schema)}.${FUNCTION}() RENAME TO ${RETIRED_FUNCTION}`;
}

/** With the triggers that were put on it since they were listed. */
export function dropRetiredFunctionSql({ schema }: OwnershipTarget): string {
  return `DROP FUNCTION IF EXISTS ${quoteIdentifier(schema)}.${RETIRED_FUNCTION}() CASCADE`;
}

function leafTable({ pgbossSchema }: OwnershipTarget, table: string): string {
  return `${quoteIdentifier(pgbossSchema)}.${quoteIdentifier(table)}`;
}

function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
