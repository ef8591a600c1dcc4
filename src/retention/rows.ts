import type { Sql } from '../postgres/database.ts';
import { DatabaseError } from '../postgres/errors.ts';
import type { ArchiveTarget } from './archive.ts';
import type { JsonLines } from './archive-file.ts';
import { isDue, type RecordClass } from './classes.ts';

/** Pages of a table, the last one not included. */
export interface PageRange {
  from: number;
  to: number;
}

export interface Pruned {
  pruned: number;
  archived: number;
}

/** How long a batch waits for a row that somebody else holds, before it leaves such rows to the next run. */
const LOCK_WAIT = '100ms';

/**
 * Archives and removes what is due in one range, in one statement: it reads each page once, and no row is locked before it goes.
 * Counts that do not match roll it back.
 * @throws LockNotAvailable where somebody else holds one of the rows: again with `skipHeld`, which costs three times as much.
 */
export async function pruneRows(
  tx: Sql,
  { recordClass, seconds, range, skipHeld }: { recordClass: RecordClass; seconds: number; range: PageRange; skipHeld: boolean },
  archive: ArchiveTarget,
): Promise<Pruned> {
  const { name, table, record = 'to_jsonb(gone)' } = recordClass;
  const values = [seconds, `(${range.from},0)`, `(${range.to},0)`];
  const due = `r.ctid >= $2::tid AND r.ctid < $3::tid AND ${isDue(recordClass)}`;
  const held = `r.ctid = ANY (ARRAY(SELECT r.ctid FROM ${table} r WHERE ${due} FOR UPDATE OF r SKIP LOCKED))`;
  const remove = `DELETE FROM ${table} r WHERE ${skipHeld ? held : due}`;
  await tx.query(`SET LOCAL lock_timeout = '${LOCK_WAIT}'`);
  if (!recordClass.archived) return { pruned: await tx.execute(remove, values), archived: 0 };
  if (archive.kind === 'files') {
    // One text, not thousands of rows: this process only compresses it.
    const [gone = { rows: 0, lines: '' }] = await tx.query<JsonLines>(
      `WITH gone AS (${remove} RETURNING r.*)
       SELECT count(*)::int AS rows, coalesce(string_agg((${record})::text, E'\\n'), '') AS lines FROM gone`,
      values,
    );
    if (gone.rows > 0) await archive.write(tx, name, gone);
    return { pruned: gone.rows, archived: gone.rows };
  }
  const [counts = { pruned: 0, archived: 0 }] = await tx.query<Pruned>(
    `WITH gone AS (${remove} RETURNING r.*), kept AS (INSERT INTO archive (class, record) SELECT '${name}', ${record} FROM gone RETURNING 1)
     SELECT (SELECT count(*)::int FROM gone) AS pruned, (SELECT count(*)::int FROM kept) AS archived`,
    values,
  );
  if (counts.archived !== counts.pruned)
    throw new DatabaseError(
      `${counts.archived} of ${counts.pruned} ${name} were archived: the batch was rolled back`,
      undefined,
      undefined,
    );
  return counts;
}

/** How many pages a table has, and how much each stands for on the average: large values lie elsewhere. */
export async function readExtent(sql: Sql, table: string): Promise<{ pages: number; bytesPerPage: number }> {
  const [row] = await sql.query<{ pages: number; bytes: number }>(
    `SELECT (pg_relation_size($1::regclass) / current_setting('block_size')::int)::int AS pages, pg_table_size($1::regclass)::float8 AS bytes`,
    [table],
  );
  const { pages = 0, bytes = 0 } = row ?? {};
  return { pages, bytesPerPage: bytes / Math.max(1, pages) };
}

export async function isAnythingDue(sql: Sql, recordClass: RecordClass, seconds: number): Promise<boolean> {
  const rows = await sql.query(`SELECT FROM ${recordClass.table} r WHERE ${isDue(recordClass)} LIMIT 1`, [seconds]);
  return rows.length > 0;
}
