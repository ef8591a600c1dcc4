import { createFlowStore } from '../src/pgboss/flow-store.ts';
import { findStuckFlows } from '../src/workflows/stuck-flows.ts';
import { type Bench, median, quantile, timed, withServer } from './support.ts';

const ROUNDS = 10;

/** The look for stuck flows in a table of many jobs: what it costs when nothing is stuck, and when something is; and by which plan. */
export async function benchFlows(quick: boolean): Promise<void> {
  const jobs = quick ? 100_000 : 1_000_000;
  console.log(`stuck flows: ${jobs} jobs in one table, 9 of 10 completed`);
  await withServer(quick, async (bench) => {
    const { database, boss } = bench;
    await boss.createQueue('work');
    await database.query(
      `INSERT INTO job (name, state, completed_on, blocking) SELECT 'work', CASE WHEN n % 10 = 0 THEN 'created' ELSE 'completed' END::job_state, now(), false
       FROM generate_series(1, $1) n`,
      [jobs],
    );
    await report(bench, 'no flow at all');
    await addFlows(bench, 10_000, 'created');
    await report(bench, '10,000 children whose parents are still to run');
    await addFlows(bench, 1_000, 'failed');
    await report(bench, '1,000 stuck ones besides');
    await explain(bench);
  });
}

async function addFlows({ database }: Bench, count: number, state: string): Promise<void> {
  await database.query(
    `WITH parent AS (INSERT INTO job (name, state, blocking) SELECT 'work', $2::job_state, true FROM generate_series(1, $1) RETURNING id),
     pair AS (SELECT id AS parent_id, gen_random_uuid() AS child_id FROM parent),
     child AS (INSERT INTO job (id, name, state, blocked, pending_dependencies) SELECT child_id, 'work', 'created', true, 1 FROM pair)
     INSERT INTO job_dependency (child_name, child_id, parent_name, parent_id) SELECT 'work', child_id, 'work', parent_id FROM pair`,
    [count, state],
  );
  await database.query('VACUUM ANALYZE job_common, job_dependency');
}

const unopened = (): never => {
  throw new Error('nothing is resolved here');
};

async function report({ database }: Bench, what: string): Promise<void> {
  await database.query('VACUUM ANALYZE job_common, job_dependency');
  const flows = createFlowStore(unopened, unopened);
  const times: number[] = [];
  let found = 0;
  for (let round = 0; round <= ROUNDS; round++)
    times.push(
      await timed(async () => {
        found = (await findStuckFlows(database, flows)).flows.length;
      }),
    );
  console.log(
    `  ${what}: ${found} found, median ${median(times.slice(1)).toFixed(1)} ms, p95 ${quantile(times.slice(1), 0.95).toFixed(1)} ms`,
  );
}

/** The plan of the look's own statement: the plain query is read from the feature, not repeated here. */
async function explain({ database }: Bench): Promise<void> {
  const plans: string[] = [];
  const explaining = {
    query: async <Row extends object>(text: string, values: readonly unknown[] = []): Promise<Row[]> => {
      const rows = await database.query<{ 'QUERY PLAN': string }>(`EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) ${text}`, values);
      plans.push(...rows.map((row) => row['QUERY PLAN']));
      return [];
    },
    execute: database.execute,
  };
  const flows = createFlowStore(unopened, unopened);
  await flows.listStuck(explaining, ['work'], 10_000);
  for (const line of plans.filter((plan) => /Scan/.test(plan))) console.log(`  ${line.trim()}`);
}
