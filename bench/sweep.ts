import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { PgBoss } from 'pg-boss';
import { type Bench, median, timed, withServer } from './support.ts';

const SWEEPER = fileURLToPath(new URL('./sweeper.mjs', import.meta.url));

/** Finished jobs, and orphans of one dead executor, written in bulk: `expired` makes them pg-boss's to find. */
async function fill({ database, boss }: Bench, finished: number, orphans: number): Promise<void> {
  await boss.createQueue('work', { retryLimit: 5 });
  await database.query(
    `INSERT INTO pgboss.job (name, state, data, retry_limit, expire_seconds, created_on, started_on, completed_on, deletion_seconds)
     SELECT 'work', 'completed', '{}', 5, 900, now() - interval '1 hour', now() - interval '1 hour', now() - interval '1 hour', 604800 FROM generate_series(1, $1)`,
    [finished],
  );
  await prepareOrphans({ database }, orphans);
  await database.query('VACUUM ANALYZE pgboss.job_common');
}

async function prepareOrphans({ database }: Pick<Bench, 'database'>, orphans: number): Promise<void> {
  await database.query(`DELETE FROM pgboss.job WHERE state <> 'completed'`);
  await database.query('TRUNCATE attempt_a, attempt_b, recovery, executor');
  await database.query(`SELECT heartbeat('dead', 'dead')`);
  await database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now(), started_at = now() - interval '1 hour'`);
  await database.query(
    `WITH orphan AS (
       INSERT INTO pgboss.job (name, state, data, retry_limit, expire_seconds, started_on, heartbeat_on)
       SELECT 'work', 'active', '{}', 5, 60, now() - interval '10 minutes', now() - interval '10 minutes' FROM generate_series(1, $1) RETURNING *
     )
     INSERT INTO attempt_a SELECT name, id, retry_count, 'dead', started_on FROM orphan`,
    [orphans],
  );
  await database.query('VACUUM ANALYZE pgboss.job_common');
  await database.query('ANALYZE attempt_a');
  await database.query('CHECKPOINT');
}

async function countActive({ database }: Bench): Promise<number> {
  const [row] = await database.query<{ count: number }>(`SELECT count(*)::int AS count FROM pgboss.job WHERE state = 'active'`);
  return row?.count ?? Number.NaN;
}

/** One sweep in a process of its own, with the flags that the command has, as this one; its peak memory with it. */
function sweepInChild(url: string): Promise<{ ms: number; peakMegabytes: number; failed: number }> {
  return new Promise((resolve, reject) => {
    const child = fork(SWEEPER, [url]);
    child.once('message', (result) => resolve(result as { ms: number; peakMegabytes: number; failed: number }));
    child.once('exit', (code) => code !== 0 && reject(new Error(`the sweeper ended with ${code}`)));
  });
}

export async function benchSweep(quick: boolean): Promise<void> {
  const finished = quick ? 50_000 : 1_000_000;
  const orphans = quick ? 5_000 : 50_000;
  const rounds = quick ? 1 : 3;
  console.log(`sweep of ${orphans} orphans among ${finished} finished jobs, beside pg-boss's own expiry of the same rows`);
  await withServer(quick, async (bench) => {
    await fill(bench, finished, orphans);
    const own: number[] = [];
    const theirs: number[] = [];
    const peaks: number[] = [];
    for (let round = 0; round < rounds; round++) {
      await prepareOrphans(bench, orphans);
      const { ms, peakMegabytes, failed } = await sweepInChild(bench.url);
      if (failed !== orphans || (await countActive(bench)) !== 0) throw new Error(`the sweep gave back ${failed} of ${orphans}`);
      own.push(ms);
      peaks.push(peakMegabytes);
      await prepareOrphans(bench, orphans);
      const supervisor = new PgBoss({
        connectionString: bench.url,
        supervise: false,
        schedule: false,
        registerInstance: false,
        monitorIntervalSeconds: 1,
      });
      await supervisor.start();
      await bench.database.query('UPDATE pgboss.queue SET monitor_claim_on = NULL, monitor_on = NULL');
      theirs.push(await timed(() => supervisor.supervise('work')));
      await supervisor.stop({ graceful: false });
      if ((await countActive(bench)) !== 0) throw new Error("pg-boss's own expiry left active jobs");
    }
    console.log(
      `  reclaimd ${median(own).toFixed(0)} ms, pg-boss ${median(theirs).toFixed(0)} ms, ratio ${(median(own) / median(theirs)).toFixed(2)}; peak memory of the sweeping process ${Math.max(...peaks).toFixed(0)} MB (${rounds} rounds)`,
    );
  });
}
