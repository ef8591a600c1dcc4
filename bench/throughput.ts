import { PgBoss } from 'pg-boss';
import { installOwnership } from '../src/ownership/install.ts';
import { dropTriggerSql } from '../src/ownership/trigger.ts';
import { type Bench, TARGET, timed, withServer } from './support.ts';

const CONSUMERS = 4;
const QUEUES = ['with', 'without'] as const;
type Times = Record<(typeof QUEUES)[number], number>;

/**
 * The cost of recording ownership. Two queues with a table each, one with the trigger and one without; four consumers that
 * fetch and complete a batch of the one, then a batch of the other, so that both meet the same weather.
 */
export async function benchThroughput(quick: boolean): Promise<void> {
  console.log(`fetch + complete, ${CONSUMERS} consumers, ownership on and off in turns`);
  await withServer(quick, async (bench) => {
    const tables = await createQueues(bench);
    for (const [batchSize, jobs, rounds] of [
      [1, quick ? 1_000 : 6_000, quick ? 1 : 5],
      [50, quick ? 5_000 : 40_000, quick ? 1 : 5],
    ] as const) {
      const ratios: number[] = [];
      let total: Times = { with: 0, without: 0 };
      for (let round = 0; round < rounds; round++) {
        await fill(bench, tables, jobs);
        const spent = await consume(bench, batchSize);
        ratios.push(spent.without / spent.with);
        total = { with: total.with + spent.with, without: total.without + spent.without };
      }
      const perSecond = (ms: number) => ((1000 * CONSUMERS * jobs * rounds) / ms).toFixed(0);
      console.log(
        `  batch ${String(batchSize).padStart(2)}: on ${perSecond(total.with)} jobs/s, off ${perSecond(total.without)} jobs/s, ratio ${(total.without / total.with).toFixed(3)} (${rounds} rounds: ${ratios.map((ratio) => ratio.toFixed(3)).join(', ')})`,
      );
    }
  });
}

async function createQueues({ boss, database }: Bench): Promise<string[]> {
  for (const queue of QUEUES) await boss.createQueue(queue, { partition: true });
  await installOwnership(database, TARGET);
  const tables = await database.query<{ name: string; table: string }>('SELECT name, table_name AS table FROM queue');
  const without = tables.find(({ name }) => name === 'without');
  if (!without) throw new Error('the queue is not there');
  await database.query(dropTriggerSql(TARGET, without.table));
  return tables.map(({ table }) => `pgboss."${table}"`);
}

async function fill({ boss, database }: Bench, tables: readonly string[], jobs: number): Promise<void> {
  await database.query(`TRUNCATE ${tables.join(', ')}`);
  for (const queue of QUEUES)
    for (let sent = 0; sent < jobs; sent += 5_000)
      await boss.insert(
        queue,
        Array.from({ length: Math.min(5_000, jobs - sent) }, () => ({ data: {} })),
      );
  for (const table of tables) await database.query(`VACUUM ANALYZE ${table}`);
}

/** @returns how long the consumers were at work on each queue, in milliseconds, all of them together. */
async function consume({ url }: Bench, batchSize: number): Promise<Times> {
  const spent: Times = { with: 0, without: 0 };
  await Promise.all(
    Array.from({ length: CONSUMERS }, async (_, index) => {
      const consumer = new PgBoss({
        connectionString: url,
        application_name: `consumer-${index}`,
        supervise: false,
        schedule: false,
        registerInstance: false,
        max: 1,
      });
      await consumer.start();
      const finished = new Set<string>();
      for (let turn = 0; finished.size < QUEUES.length; turn++) {
        const queue = QUEUES[turn % QUEUES.length] ?? 'with';
        if (finished.has(queue)) continue;
        const ms = await timed(async () => {
          const batch = (await consumer.fetch(queue, { batchSize })) ?? [];
          if (batch.length === 0) return void finished.add(queue);
          await consumer.complete(
            queue,
            batch.map(({ id }) => id),
          );
        });
        if (!finished.has(queue)) spent[queue] += ms;
      }
      await consumer.stop({ graceful: false });
    }),
  );
  return spent;
}
