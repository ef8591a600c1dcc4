import type { Sql } from '../postgres/database.ts';

/** Where the demo's jobs leave their effect: one row for each time that a job was really done. */
export async function createEffectTable(sql: Sql): Promise<void> {
  await sql.query('CREATE TABLE public.demo_effect (job_id uuid NOT NULL, pid int NOT NULL, at timestamptz NOT NULL DEFAULT now())');
}

export interface RecoveryRow {
  jobId: string;
  pid: number;
  node: string;
  outcome: string;
  proof: string | null;
  /** From the last sign of life to the requeue, by the database. */
  seconds: number;
}

export function listRecoveries(sql: Sql, pid: number): Promise<RecoveryRow[]> {
  return sql.query<RecoveryRow>(
    `SELECT r.job_id AS "jobId", e.pid, r.node, r.outcome, r.proof, extract(epoch FROM r.recovered_at - r.last_alive_at)::float8 AS seconds
     FROM recovery r JOIN executor e ON e.id = r.executor_id WHERE e.pid = $1 ORDER BY r.id`,
    [pid],
  );
}

export async function readVerdict(sql: Sql, pid: number): Promise<string> {
  const [row] = await sql.query<{ verdict: string }>('SELECT verdict FROM executor WHERE pid = $1 ORDER BY started_at DESC LIMIT 1', [pid]);
  return row?.verdict ?? 'unknown';
}

export async function isAdopted(sql: Sql, pid: number): Promise<boolean> {
  return (await sql.query('SELECT FROM executor WHERE pid = $1 AND witness_node IS NOT NULL', [pid])).length > 0;
}

export interface Balance {
  jobs: number;
  completed: number;
  failed: number;
  unfinished: number;
  /** Jobs whose effect happened more than once. */
  doubled: number;
  /** Jobs that are completed but left no effect. */
  withoutEffect: number;
}

export async function readBalance(sql: Sql, queue: string): Promise<Balance> {
  const [row] = await sql.query<Balance>(
    `SELECT count(*)::int AS jobs, count(*) FILTER (WHERE state = 'completed')::int AS completed,
       count(*) FILTER (WHERE state = 'failed')::int AS failed, count(*) FILTER (WHERE state < 'completed')::int AS unfinished,
       count(*) FILTER (WHERE effects > 1)::int AS doubled, count(*) FILTER (WHERE state = 'completed' AND effects = 0)::int AS "withoutEffect"
     FROM (SELECT j.state, (SELECT count(*) FROM public.demo_effect e WHERE e.job_id = j.id) AS effects FROM job j WHERE j.name = $1) AS each`,
    [queue],
  );
  if (!row) throw new Error('the balance has no row');
  return row;
}
