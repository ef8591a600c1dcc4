import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { installOwnership } from '../src/ownership/install.ts';
import type { Database, Sql } from '../src/postgres/database.ts';
import { RECORD_NAMES, type RecordName } from '../src/retention/classes.ts';
import { type Periods, type PruneDependencies, runArchivePrune } from '../src/retention/prune.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { type Bench, median, quantile, TARGET, timed, withServer } from './support.ts';

const ORDER = { actor: 'bench', reason: 'to measure' };
const ROUNDS = 3;

/** A million due rows: pruned in batches beside one plain DELETE of the same rows; archived first, to the table and to files; sweeps meanwhile. */
export async function benchRetention(quick: boolean): Promise<void> {
  const rows = quick ? 50_000 : 1_000_000;
  console.log(`retention: ${rows} due rows`);
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-bench-archive-'));
  try {
    await withServer(quick, async (bench) => {
      await comparePlainDelete(bench, rows);
      await measureArchive(bench, rows, directory);
      await measureSweeps(bench, rows);
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function comparePlainDelete({ database, quick }: Bench, rows: number): Promise<void> {
  const plain: number[] = [];
  const pruned: number[] = [];
  let longestMs = 0;
  for (let round = 0; round < (quick ? 1 : ROUNDS); round++) {
    const DELETE = `DELETE FROM workflow_action WHERE acted_at < now() - interval '1 day'`;
    plain.push((await measure(database, 'workflow_action', fillActions, rows, () => database.query(DELETE))).seconds);
    const run = await measure(database, 'workflow_action', fillActions, rows, (watched) => prune(watched, 'workflow_actions'));
    pruned.push(run.seconds);
    longestMs = Math.max(longestMs, run.longestMs);
  }
  const ratio = median(pruned) / median(plain);
  console.log(
    `  one plain DELETE ${median(plain).toFixed(1)} s; pruned in ${median(pruned).toFixed(1)} s: ${ratio.toFixed(2)} times, longest statement ${longestMs.toFixed(0)} ms`,
  );
  console.log(`  memory of this process, at most: ${Math.round(process.resourceUsage().maxRSS / 1024)} MB`);
}

async function measureArchive({ database }: Bench, rows: number, directory: string): Promise<void> {
  const report = (where: string, { seconds, longestMs }: Measured, bytes: number) =>
    console.log(
      `  archived to ${where}: ${Math.round(rows / seconds)} rows a second, ${Math.round(bytes / rows)} bytes a row, longest statement ${longestMs.toFixed(0)} ms`,
    );
  const toTable = await measure(database, 'recovery', fillRecoveries, rows, (watched) => prune(watched, 'recoveries'));
  report('the table', toTable, await readNumber(database, `SELECT pg_total_relation_size('archive')::float8 AS number`));
  const toFiles = await measure(database, 'recovery', fillRecoveries, rows, (watched) => prune(watched, 'recoveries', directory));
  report('files', toFiles, await readNumber(database, 'SELECT sum(bytes)::float8 AS number FROM archive_file'));
  console.log(`  memory of this process, at most: ${Math.round(process.resourceUsage().maxRSS / 1024)} MB`);
}

/** The sweep's own statement for one orphan's attempts, again and again: alone, and while a prune is at work. */
async function measureSweeps({ database }: Bench, rows: number): Promise<void> {
  await installOwnership(database, TARGET);
  const look = () =>
    timed(() =>
      database.query(
        `SELECT a.* FROM attempt a JOIN job j ON j.name = a.queue AND j.id = a.job_id WHERE a.application_name = 'x' AND j.state = 'active'`,
      ),
    );
  const alone: number[] = [];
  for (let index = 0; index < 200; index++) alone.push(await look());
  const meanwhile: number[] = [];
  let over = false;
  await database.query(fillActions, [rows]);
  const pruning = prune(database, 'workflow_actions').finally(() => {
    over = true;
  });
  while (!over) meanwhile.push(await look());
  await pruning;
  const ms = (values: readonly number[], share: number) => quantile(values, share).toFixed(1);
  console.log(
    `  a sweep's look for orphans: alone p50 ${ms(alone, 0.5)}, p99 ${ms(alone, 0.99)} ms; while ${rows} rows go p50 ${ms(meanwhile, 0.5)}, p99 ${ms(meanwhile, 0.99)} ms (${meanwhile.length} looks)`,
  );
}

const fillActions = `INSERT INTO workflow_action (queue, job_id, action, acted_at) SELECT 'q', gen_random_uuid(), 'retry', now() - interval '1 year' FROM generate_series(1, $1)`;
const fillRecoveries = `INSERT INTO recovery (queue, job_id, retry_count, verdict, policy, policy_source, outcome, reason, node, recovered_at)
  SELECT 'q', gen_random_uuid(), 0, 'dead', 'fail', 'default', 'failed', 'its process is gone', 'n', now() - interval '1 year' FROM generate_series(1, $1)`;

async function readNumber(sql: Sql, query: string): Promise<number> {
  const [row] = await sql.query<{ number: number }>(query);
  return row?.number ?? 0;
}

interface Measured {
  seconds: number;
  longestMs: number;
}

async function measure(
  database: Database,
  table: string,
  fill: string,
  rows: number,
  work: (watched: Database) => Promise<unknown>,
): Promise<Measured> {
  await database.query(`TRUNCATE ${table}`);
  await database.query(fill, [rows]);
  await database.query(`VACUUM ANALYZE ${table}`);
  await database.query('CHECKPOINT');
  let longestMs = 0;
  async function timedStatement<T>(statement: Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const result = await statement;
    longestMs = Math.max(longestMs, performance.now() - startedAt);
    return result;
  }
  const watch = (sql: Sql): Sql => ({
    query: (text, values) => timedStatement(sql.query<never>(text, values)),
    execute: (text, values) => timedStatement(sql.execute(text, values)),
  });
  const watched: Database = { ...database, transaction: (inner) => database.transaction((tx) => inner(watch(tx))) };
  const seconds = (await timed(() => work(watched))) / 1000;
  return { seconds, longestMs };
}

async function prune(database: Database, name: RecordName, archiveDirectory?: string): Promise<void> {
  const periods = Object.fromEntries(RECORD_NAMES.map((one) => [one, one === name ? 86_400 : Number.POSITIVE_INFINITY])) as Periods;
  const dependencies: PruneDependencies = { database, clock: systemClock, periods, node: 'bench', budgetMs: 600_000, archiveDirectory };
  const run = await runArchivePrune(dependencies, ORDER);
  const result = 'classes' in run ? run.classes[name] : undefined;
  if (result?.left !== false) throw new Error(`not everything went: ${JSON.stringify(run)}`);
}
