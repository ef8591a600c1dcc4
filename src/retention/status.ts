import { createTask } from 'node-cron';
import { isoTime } from '../postgres/iso-time.ts';
import { isDue, RECORD_CLASSES, type RecordName } from './classes.ts';
import type { ClassResult, PruneDependencies, PruneResult } from './prune.ts';

export interface ClassStatus {
  name: RecordName;
  /** Null: for ever. */
  keptSeconds: number | null;
  archivedFirst: boolean;
  rows: number;
  bytes: number;
  due: number;
  /** When the oldest row became history, ISO 8601 in UTC, and how long ago; null where there is none. */
  oldestAt: string | null;
  oldestSeconds: number | null;
  /** As above, of those that are due. */
  oldestDueSeconds: number | null;
  /** What the last run that ended did to it; null before the first. */
  lastResult: ClassResult | null;
}

type Measured = Pick<ClassStatus, 'rows' | 'bytes' | 'due' | 'oldestAt' | 'oldestSeconds' | 'oldestDueSeconds'>;

export interface RetentionStatus {
  classes: ClassStatus[];
  /** The archive's files, of all nodes; each counts as a row of the class `archive` as well. */
  files: { count: number; rows: number; bytes: number };
  /** The latest, whether it has ended, is under way, or broke off. */
  lastRun: {
    node: string;
    actor: string;
    state: 'ended' | 'under way' | 'broke off';
    /** ISO 8601 in UTC. */
    startedAt: string;
    endedAt: string | null;
    result: PruneResult;
  } | null;
  /** By the schedule; ISO 8601 in UTC. Each node begins some minutes of its own later. */
  nextRunAt: string | null;
}

export interface Schedule {
  expression: string;
  timeZone: string | undefined;
}

export type StatusDependencies = Pick<PruneDependencies, 'database' | 'periods'> & { schedule: Schedule };

/** What there is, how old it is and what is due. Counts whole tables: for a person, or once in a while. */
export async function retentionStatus({ database, periods, schedule }: StatusDependencies): Promise<RetentionStatus> {
  const [lastRun] = await database.query<NonNullable<RetentionStatus['lastRun']>>(
    `SELECT node, actor, CASE WHEN ended_at <= lease_until THEN 'ended' WHEN ended_at IS NULL AND lease_until > now() THEN 'under way' ELSE 'broke off' END AS state,
       ${isoTime('started_at')} AS "startedAt", ${isoTime('ended_at')} AS "endedAt", result
     FROM retention_run ORDER BY id DESC LIMIT 1`,
  );
  const [lastEnded] = await database.query<{ result: PruneResult }>(
    'SELECT result FROM retention_run WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 1',
  );
  const classes: ClassStatus[] = [];
  for (const recordClass of RECORD_CLASSES) {
    const { name, table, archived, endedAt, parts = [table], beside } = recordClass;
    const seconds = periods[name];
    const forever = !Number.isFinite(seconds);
    const [row] = await database.query<Measured>(
      // OFFSET 0: whether a row is due, which may ask the open incidents, is asked once a row.
      `SELECT count(*)::float8 AS rows, (SELECT sum(pg_total_relation_size(part::regclass))::float8 FROM unnest($3::text[]) AS part) AS bytes,
         (count(*) FILTER (WHERE due))::float8 AS due,
         ${isoTime('min(ended_at)')} AS "oldestAt", extract(epoch FROM now() - min(ended_at))::float8 AS "oldestSeconds",
         extract(epoch FROM now() - min(ended_at) FILTER (WHERE due))::float8 AS "oldestDueSeconds"
       FROM (
         (SELECT ${endedAt} AS ended_at, NOT $2 AND ${isDue(recordClass)} AS due FROM ${table} r OFFSET 0)
         ${beside ? `UNION ALL SELECT ${beside.endedAt}, NOT $2 AND ${isDue(beside)} FROM ${beside.table} r` : ''}
       ) AS looked_at`,
      [forever ? 0 : seconds, forever, parts],
    );
    const { rows = 0, bytes = 0, due = 0, oldestAt = null, oldestSeconds = null, oldestDueSeconds = null } = row ?? {};
    const kept = { keptSeconds: forever ? null : seconds, archivedFirst: archived, lastResult: lastEnded?.result[name] ?? null };
    classes.push({ name, ...kept, rows, bytes, due, oldestAt, oldestSeconds, oldestDueSeconds });
  }
  const [files = { count: 0, rows: 0, bytes: 0 }] = await database.query<RetentionStatus['files']>(
    'SELECT count(*)::float8 AS count, coalesce(sum(rows), 0)::float8 AS rows, coalesce(sum(bytes), 0)::float8 AS bytes FROM archive_file',
  );
  return { classes, files, lastRun: lastRun ?? null, nextRunAt: nextRun(schedule)?.toISOString() ?? null };
}

/** When the schedule is next due; by this host's clock, like the schedule itself. */
export function nextRun({ expression, timeZone }: Schedule): Date | undefined {
  const task = createTask(expression, () => undefined, timeZone === undefined ? {} : { timezone: timeZone });
  try {
    return task.getNextRuns(1)[0];
  } finally {
    void task.destroy();
  }
}
