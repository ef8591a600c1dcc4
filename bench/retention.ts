import type { Database, Sql } from '../src/postgres/database.ts';
import type { RecordName } from '../src/retention/classes.ts';
import { RECORD_NAMES } from '../src/retention/classes.ts';
import { type Periods, PRUNE_BATCH, runArchivePrune } from '../src/retention/prune.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { timed, withServer } from './support.ts';

const ORDER = { actor: 'bench', reason: 'to measure' };

/** A million due rows: pruned in batches beside one plain DELETE of the same rows, and the same with the archive. */
export async function benchRetention(quick: boolean): Promise<void> {
  const rows = quick ? 50_000 : 1_000_000;
  console.log(`retention: ${rows} due rows`);
  await withServer(quick, async ({ database }) => {
    const plain = await measure(database, 'workflow_action', fillActions, rows, () => database.query('DELETE FROM workflow_action'));
    const pruned = await measure(database, 'workflow_action', fillActions, rows, (watched) => prune(watched, 'workflow_actions'));
    const archived = await measure(database, 'recovery', fillRecoveries, rows, (watched) => prune(watched, 'recoveries'));
    const [{ bytes = 0 } = {}] = await database.query<{ bytes: number }>(`SELECT pg_total_relation_size('archive')::float8 AS bytes`);
    console.log(
      `  one plain DELETE ${plain.seconds.toFixed(1)} s; pruned in ${pruned.seconds.toFixed(1)} s: ${(pruned.seconds / plain.seconds).toFixed(2)} times, longest statement ${pruned.longestMs.toFixed(0)} ms`,
    );
    console.log(
      `  archived first: ${Math.round(rows / archived.seconds)} rows a second, ${Math.round(bytes / rows)} bytes a row, longest statement ${archived.longestMs.toFixed(0)} ms`,
    );
    console.log(`  memory of this process: ${Math.round(process.memoryUsage().rss / 2 ** 20)} MB`);
  });
}

const fillActions = `INSERT INTO workflow_action (queue, job_id, action, acted_at) SELECT 'q', gen_random_uuid(), 'retry', now() - interval '1 year' FROM generate_series(1, $1)`;
const fillRecoveries = `INSERT INTO recovery (queue, job_id, retry_count, verdict, policy, policy_source, outcome, reason, node, recovered_at)
  SELECT 'q', gen_random_uuid(), 0, 'dead', 'fail', 'default', 'failed', 'its process is gone', 'n', now() - interval '1 year' FROM generate_series(1, $1)`;

async function measure(database: Database, table: string, fill: string, rows: number, work: (watched: Database) => Promise<unknown>) {
  await database.query(`TRUNCATE ${table}`);
  await database.query(fill, [rows]);
  await database.query(`VACUUM ANALYZE ${table}`);
  await database.query('CHECKPOINT');
  let longestMs = 0;
  const watch = (sql: Sql): Sql => ({
    query: async (text, values) => {
      const startedAt = performance.now();
      const result = await sql.query<never>(text, values);
      longestMs = Math.max(longestMs, performance.now() - startedAt);
      return result;
    },
  });
  const watched: Database = { ...database, transaction: (inner) => database.transaction((tx) => inner(watch(tx))) };
  const seconds = (await timed(() => work(watched))) / 1000;
  return { seconds, longestMs };
}

function prune(database: Database, name: RecordName) {
  const periods = Object.fromEntries(RECORD_NAMES.map((one) => [one, one === name ? 86_400 : Number.POSITIVE_INFINITY])) as Periods;
  return runArchivePrune({ database, clock: systemClock, periods, node: 'bench', batch: PRUNE_BATCH, budgetMs: 600_000 }, ORDER);
}
