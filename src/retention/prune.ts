import { appendAudit } from '../audit/append.ts';
import type { Database, Sql } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import { RECORD_CLASSES, type RecordClass, type RecordName } from './classes.ts';

/** How long each class is kept, in seconds; Infinity: for ever. */
export type Periods = Readonly<Record<RecordName, number>>;

export interface PruneDependencies {
  database: Database;
  clock: Clock;
  periods: Periods;
  node: string;
  /** Rows of one statement. */
  batch: number;
  /** Then it stops, and goes on at the next run. */
  budgetMs: number;
}

export interface PruneOrder {
  actor: string;
  reason: string | null;
}

export interface ClassResult {
  pruned: number;
  archived: number;
  /** The time was over before everything that is due was gone. */
  left: boolean;
  error?: string;
}

export type PruneResult = Partial<Record<RecordName, ClassResult>>;

/** So that others get at the database in between. */
const PAUSE_MS = 5;
/** A slow database is given less at a time. */
const SLOW_MS = 250;
const LEAST_BATCH = 100;
/** Rows of one statement, to begin with. */
export const PRUNE_BATCH = 10_000;

/**
 * Archives and removes what is due, class by class, in bounded batches: each is one statement that archives and deletes, and
 * counts that do not match roll it back. Rows that others hold are left for the next time; what fails in one class keeps no
 * other from its turn. One run is one row of the ledger and, where anything went, one audit event.
 */
export async function runArchivePrune(dependencies: PruneDependencies, order: PruneOrder): Promise<PruneResult> {
  const { database, clock, node, budgetMs } = dependencies;
  const [run] = await database.query<{ id: string }>(
    'INSERT INTO retention_run (node, actor, reason) VALUES ($1, $2, $3) RETURNING id::text',
    [node, order.actor, order.reason],
  );
  const deadline = clock.now() + budgetMs;
  const result: PruneResult = {};
  for (const recordClass of RECORD_CLASSES) result[recordClass.name] = await pruneClass(dependencies, recordClass, deadline);
  const went = Object.fromEntries(Object.entries(result).filter(([, { pruned }]) => pruned > 0));
  await database.transaction(async (tx) => {
    await tx.query('UPDATE retention_run SET ended_at = clock_timestamp(), result = $2 WHERE id = $1', [run?.id, JSON.stringify(result)]);
    if (Object.keys(went).length > 0)
      await appendAudit(tx, {
        ...order,
        action: 'retention_prune',
        target: 'retention',
        outcome: 'done',
        node,
        detail: { run: run?.id, classes: went },
      });
  });
  return result;
}

async function pruneClass(dependencies: PruneDependencies, recordClass: RecordClass, deadline: number): Promise<ClassResult> {
  const { database, clock, periods } = dependencies;
  const result: ClassResult = { pruned: 0, archived: 0, left: false };
  const seconds = periods[recordClass.name];
  if (!Number.isFinite(seconds)) return result;
  let batch = dependencies.batch;
  let after = '(0,0)';
  try {
    for (;;) {
      if (clock.now() >= deadline) return { ...result, left: (await countDue(database, recordClass, seconds)) > 0 };
      const startedAt = clock.now();
      const from = after;
      const size = batch;
      const { pruned, archived, last } = await database.transaction((tx) => pruneBatch(tx, recordClass, seconds, size, from));
      after = last ?? after;
      result.pruned += pruned;
      result.archived += archived;
      if (pruned < size) return result;
      if (clock.now() - startedAt > SLOW_MS) batch = Math.max(LEAST_BATCH, Math.floor(batch / 2));
      await clock.sleep(PAUSE_MS);
    }
  } catch (error) {
    return { ...result, left: true, error: error instanceof Error ? error.message : String(error) };
  }
}

const dueOf = ({ endedAt, unless }: RecordClass) => `${endedAt} < now() - make_interval(secs => $1)${unless ? ` AND ${unless}` : ''}`;

interface Batch {
  pruned: number;
  archived: number;
  /** Where in the table it ended; null where nothing was due. */
  last: string | null;
}

/** `after`: where the batch before ended, so that a run reads the table once, not its dead rows again and again. */
async function pruneBatch(tx: Sql, recordClass: RecordClass, seconds: number, batch: number, after: string): Promise<Batch> {
  const { name, table, archived, record = 'to_jsonb(gone)' } = recordClass;
  const keep = archived ? `INSERT INTO archive (class, record) SELECT '${name}', ${record} FROM gone RETURNING 1` : 'SELECT 1 WHERE false';
  const [row] = await tx.query<Batch>(
    `WITH due AS (SELECT r.ctid AS at FROM ${table} r WHERE r.ctid > $3::tid AND ${dueOf(recordClass)} LIMIT $2 FOR UPDATE OF r SKIP LOCKED),
     gone AS (DELETE FROM ${table} t WHERE t.ctid = ANY (ARRAY(SELECT at FROM due)) RETURNING ${archived ? 't.*' : '1'}),
     kept AS (${keep})
     SELECT (SELECT count(*)::int FROM gone) AS pruned, (SELECT count(*)::int FROM kept) AS archived, (SELECT max(at)::text FROM due) AS last`,
    [seconds, batch, after],
  );
  const counts = row ?? { pruned: 0, archived: 0, last: null };
  if (archived && counts.archived !== counts.pruned)
    throw new Error(`${counts.archived} of ${counts.pruned} ${name} were archived: the batch was rolled back`);
  return counts;
}

async function countDue(sql: Sql, recordClass: RecordClass, seconds: number): Promise<number> {
  const [row] = await sql.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM (SELECT FROM ${recordClass.table} r WHERE ${dueOf(recordClass)} LIMIT 1) AS due`,
    [seconds],
  );
  return row?.count ?? 0;
}

export interface ClassStatus {
  name: RecordName;
  /** Null: for ever. */
  keptSeconds: number | null;
  archivedFirst: boolean;
  rows: number;
  bytes: number;
  due: number;
  /** Since the oldest row became history; null where there is none. */
  oldestSeconds: number | null;
}

export interface RetentionStatus {
  classes: ClassStatus[];
  lastRun: { node: string; actor: string; startedAt: string; endedAt: string | null; result: PruneResult } | null;
}

/** What there is, how old it is and what is due. Counts whole tables: for a person, or once in a while. */
export async function retentionStatus({ database, periods }: Pick<PruneDependencies, 'database' | 'periods'>): Promise<RetentionStatus> {
  const classes: ClassStatus[] = [];
  for (const recordClass of RECORD_CLASSES) {
    const { name, table, archived, endedAt } = recordClass;
    const seconds = periods[name];
    const forever = !Number.isFinite(seconds);
    const [row] = await database.query<{ rows: number; bytes: number; due: number; oldestSeconds: number | null }>(
      `SELECT count(*)::float8 AS rows, pg_total_relation_size('${table}'::regclass)::float8 AS bytes,
         (count(*) FILTER (WHERE NOT $2 AND ${dueOf(recordClass)}))::float8 AS due,
         extract(epoch FROM now() - min(${endedAt}))::float8 AS "oldestSeconds"
       FROM ${table} r`,
      [forever ? 0 : seconds, forever],
    );
    const { rows = 0, bytes = 0, due = 0, oldestSeconds = null } = row ?? {};
    classes.push({ name, keptSeconds: forever ? null : seconds, archivedFirst: archived, rows, bytes, due, oldestSeconds });
  }
  const [lastRun] = await database.query<NonNullable<RetentionStatus['lastRun']>>(
    `SELECT node, actor, started_at::text AS "startedAt", ended_at::text AS "endedAt", result FROM retention_run ORDER BY id DESC LIMIT 1`,
  );
  return { classes, lastRun: lastRun ?? null };
}
