import { PgBoss } from 'pg-boss';
import { installOwnership, removeOwnership } from '../src/ownership/install.ts';
import { type Bench, median, TARGET, timed, withServer } from './support.ts';

const CONSUMERS = 4;

/** Fetches and completes all jobs of a full queue with four consumers; returns jobs per second. */
async function measure({ url, boss, database }: Bench, jobs: number, batchSize: number): Promise<number> {
  await database.query('TRUNCATE pgboss.job_common');
  for (let sent = 0; sent < jobs; sent += 5_000)
    await boss.insert(
      'work',
      Array.from({ length: Math.min(5_000, jobs - sent) }, () => ({ data: {} })),
    );
  await database.query('VACUUM ANALYZE pgboss.job_common');
  const consumers = await Promise.all(
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
      return consumer;
    }),
  );
  const ms = await timed(() =>
    Promise.all(
      consumers.map(async (consumer) => {
        for (;;) {
          const batch = (await consumer.fetch('work', { batchSize })) ?? [];
          if (batch.length === 0) return;
          await consumer.complete(
            'work',
            batch.map(({ id }) => id),
          );
        }
      }),
    ),
  );
  await Promise.all(consumers.map((consumer) => consumer.stop({ graceful: false })));
  return (1000 * jobs) / ms;
}

/** The cost of recording ownership, interleaved so that both sides meet the same weather. */
export async function benchThroughput(quick: boolean): Promise<void> {
  console.log(`fetch + complete, ${CONSUMERS} consumers, ownership on and off`);
  await withServer(quick, async (bench) => {
    await bench.boss.createQueue('work');
    for (const [batchSize, jobs, rounds] of [
      [1, quick ? 1_000 : 4_000, quick ? 3 : 9],
      [50, quick ? 5_000 : 30_000, quick ? 3 : 9],
    ] as const) {
      const on: number[] = [];
      const off: number[] = [];
      await measure(bench, jobs, batchSize);
      for (let round = 0; round < rounds; round++) {
        for (const side of round % 2 === 0 ? [on, off] : [off, on]) {
          if (side === on) await installOwnership(bench.database, TARGET);
          else await removeOwnership(bench.database, TARGET);
          side.push(await measure(bench, jobs, batchSize));
        }
      }
      const ratios = on.map((value, index) => value / (off[index] ?? Number.NaN));
      console.log(
        `  batch ${String(batchSize).padStart(2)}: on ${median(on).toFixed(0)} jobs/s, off ${median(off).toFixed(0)} jobs/s, ratio of the medians ${(median(on) / median(off)).toFixed(3)}, median of the rounds' ratios ${median(ratios).toFixed(3)} (${rounds} rounds)`,
      );
    }
  });
}
