import { createFlowStore } from '../src/pgboss/flow-store.ts';
import { walkBlocked } from '../src/workflows/find-stuck.ts';
import { type Bench, median, quantile, timed, withServer } from './support.ts';

const ROUNDS = 5;
/** As a turn of the daemon. */
const LOOKED_AT_A_TURN = 50_000;

/** The look for stuck flows in a table of many jobs: what a turn costs, in how many everything is seen, and by which plan. */
export async function benchFlows(quick: boolean): Promise<void> {
  const jobs = quick ? 100_000 : 1_000_000;
  console.log(`stuck flows: ${jobs} jobs in one table, 9 of 10 completed`);
  await withServer(quick, async (bench) => {
    const { database, boss } = bench;
    await boss.createQueue('work');
    await boss.createQueue('child');
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
    for (let added = 0; added < jobs; added += 100_000) await addFlows(bench, 100_000, 'created');
    await report(bench, `${jobs} more children whose parents are still to run`);
    await explain(bench);
  });
}

async function addFlows({ database }: Bench, count: number, state: string): Promise<void> {
  await database.query(
    `WITH parent AS (INSERT INTO job (name, state, blocking) SELECT 'work', $2::job_state, true FROM generate_series(1, $1) RETURNING id),
     pair AS (SELECT id AS parent_id, gen_random_uuid() AS child_id FROM parent),
     child AS (INSERT INTO job (id, name, state, blocked, pending_dependencies) SELECT child_id, 'child', 'created', true, 1 FROM pair)
     INSERT INTO job_dependency (child_name, child_id, parent_name, parent_id) SELECT 'child', child_id, 'work', parent_id FROM pair`,
    [count, state],
  );
}

const unopened = (): never => {
  throw new Error('nothing is resolved here');
};
const flows = createFlowStore(unopened, unopened);

async function report({ database }: Bench, what: string): Promise<void> {
  await database.query('VACUUM ANALYZE job_common, job_dependency');
  const times: number[] = [];
  let turns = 0;
  let found = 0;
  for (let round = 0; round < ROUNDS; round++) {
    let from: Parameters<typeof walkBlocked>[2] = null;
    found = 0;
    turns = 0;
    do {
      times.push(
        await timed(async () => {
          const walk = await walkBlocked(database, flows, from, LOOKED_AT_A_TURN);
          found += walk.children.length;
          from = walk.next;
        }),
      );
      turns += 1;
    } while (from);
  }
  console.log(
    `  ${what}: ${found} found in ${turns} turns, a turn median ${median(times).toFixed(1)} ms, p95 ${quantile(times, 0.95).toFixed(1)} ms`,
  );
}

/** The plans of the look's own statements: they are read from the feature, not repeated here. */
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
  const page = await flows.pageBlocked(database, { queue: 'child', state: 'created' }, null, 5_000);
  await flows.listWaiting(explaining, ['work', 'child']);
  await flows.pageBlocked(explaining, { queue: 'child', state: 'created' }, null, 5_000);
  await flows.listStuck(explaining, page);
  for (const line of plans.filter((plan) => /Scan/.test(plan))) console.log(`  ${line.trim()}`);
}
