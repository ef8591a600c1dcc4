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

export interface Batch {
  recordClass: RecordClass;
  seconds: number;
  range: PageRange;
  /** So many pages at a time pass through this process on their way to a file: what lives for so short a time costs no memory. */
  pagesAtOnce: number;
  /** Leaves rows that somebody else holds; costs three times as much. */
  skipHeld: boolean;
}

export interface Pruned {
  pruned: number;
  archived: number;
}

/** How long a batch waits for a row that somebody else holds, before it leaves such rows to the next run. */
const LOCK_WAIT = '100ms';

/**
 * Archives and removes what is due in one range: each page is read once, and no row is locked before it goes. Counts that do not match
 * roll it back.
 * @throws LockNotAvailable where somebody else holds one of the rows, unless `skipHeld`.
 */
export async function pruneRows(
  tx: Sql,
  { recordClass, seconds, range, pagesAtOnce, skipHeld }: Batch,
  archive: ArchiveTarget,
): Promise<Pruned> {
  const { name, table, record = 'to_jsonb(gone)' } = recordClass;
  const valuesOf = ({ from, to }: PageRange) => [seconds, `(${from},0)`, `(${to},0)`];
  const due = `r.ctid >= $2::tid AND r.ctid < $3::tid AND ${isDue(recordClass)}`;
  const held = `r.ctid = ANY (ARRAY(SELECT r.ctid FROM ${table} r WHERE ${due} FOR UPDATE OF r SKIP LOCKED))`;
  const remove = `DELETE FROM ${table} r WHERE ${skipHeld ? held : due}`;
  await tx.query(`SET LOCAL lock_timeout = '${LOCK_WAIT}'`);
  if (!recordClass.archived) return { pruned: await tx.execute(remove, valuesOf(range)), archived: 0 };
  if (archive.kind === 'files') {
    const written = await archive.write(tx, name, records());
    const rows = written?.rows ?? 0;
    return { pruned: rows, archived: rows };
  }
  const [counts = { pruned: 0, archived: 0 }] = await tx.query<Pruned>(
    `WITH gone AS (${remove} RETURNING r.*), kept AS (INSERT INTO archive (class, record) SELECT '${name}', ${record} FROM gone RETURNING 1)
     SELECT (SELECT count(*)::int FROM gone) AS pruned, (SELECT count(*)::int FROM kept) AS archived`,
    valuesOf(range),
  );
  if (counts.archived !== counts.pruned)
    throw new DatabaseError(
      `${counts.archived} of ${counts.pruned} ${name} were archived: the batch was rolled back`,
      undefined,
      undefined,
    );
  return counts;

  /** One text, not thousands of rows: this process only compresses it. */
  async function* records(): AsyncGenerator<JsonLines> {
    for (let from = range.from; from < range.to; from += pagesAtOnce) {
      const [gone] = await tx.query<JsonLines>(
        `WITH gone AS (${remove} RETURNING r.*) SELECT count(*)::int AS rows, string_agg((${record})::text, E'\\n') AS lines FROM gone`,
        valuesOf({ from, to: Math.min(range.to, from + pagesAtOnce) }),
      );
      if (gone && gone.rows > 0) yield gone;
    }
  }
}

/**
 * How many pages a table has, and what each stands for on the average: rows as far as Postgres has counted them, else one; bytes, for large
 * values lie elsewhere.
 */
export async function readExtent(sql: Sql, table: string): Promise<{ pages: number; bytesPerPage: number; rowsPerPage: number }> {
  const [row] = await sql.query<{ pages: number; bytes: number; rows: number }>(
    `SELECT (pg_relation_size(c.oid) / current_setting('block_size')::int)::int AS pages, pg_table_size(c.oid)::float8 AS bytes,
       c.reltuples::float8 / greatest(1, c.relpages) AS rows FROM pg_class c WHERE c.oid = $1::regclass`,
    [table],
  );
  const { pages = 0, bytes = 0, rows = 0 } = row ?? {};
  return { pages, bytesPerPage: bytes / Math.max(1, pages), rowsPerPage: Math.max(1, rows) };
}

/** The first page of the range that has a due row; undefined where none has. */
export async function findDuePage(
  sql: Sql,
  recordClass: RecordClass,
  seconds: number,
  { from, to }: PageRange,
): Promise<number | undefined> {
  const [row] = await sql.query<{ page: number | null }>(
    `SELECT min((r.ctid::text::point)[0])::int AS page FROM ${recordClass.table} r
     WHERE r.ctid >= $2::tid AND r.ctid < $3::tid AND ${isDue(recordClass)}`,
    [seconds, `(${from},0)`, `(${to},0)`],
  );
  return row?.page ?? undefined;
}

export async function isAnythingDue(sql: Sql, recordClass: RecordClass, seconds: number): Promise<boolean> {
  const rows = await sql.query(`SELECT FROM ${recordClass.table} r WHERE ${isDue(recordClass)} LIMIT 1`, [seconds]);
  return rows.length > 0;
}
