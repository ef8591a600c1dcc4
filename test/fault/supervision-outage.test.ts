import { PgBoss } from 'pg-boss';
import { expect, onTestFinished, test } from 'vitest';
import { migrate } from '../../src/postgres/migrate.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { installPgBoss, openDatabase } from '../support/database.ts';
import { createPrivatePostgres } from '../support/private-postgres.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const OUTAGE_MS = 30_000;
const JOBS = 6;
/**
 * How often a job beats, of the 10 s that it may. Both supervisors look within 5 s of the return: with beats so seldom, and
 * spread evenly, some job has not beaten by then.
 */
const BEAT_SECONDS = 8;
const APART_MS = (BEAT_SECONDS * 1_000) / JOBS;
/** As the daemon has it; its own look at each queue comes every 60 s, pg-boss's default. */
const SUPERVISE_SECONDS = 5;
const TAKEN_OVER = { RECLAIMD_PGBOSS_SUPERVISE: 'true', RECLAIMD_OUTAGE_GRACE: '15s' };

type Supervisor = 'the daemon' | 'pg-boss alone';

/** Live handlers with beats of 10 s through an outage of 30 s. @returns how many of them were failed, once the queue has been looked at. */
async function countFailed(supervisor: Supervisor): Promise<number> {
  const postgres = await createPrivatePostgres();
  const { url } = postgres;
  const boss = await installPgBoss(url, { queues: [{ name: 'work', retryLimit: 3, heartbeatSeconds: 10 }] });
  const database = openDatabase(url);
  await migrate(database, 'reclaimd');
  if (supervisor === 'the daemon') await startTestDaemon(url, TAKEN_OVER);
  else await startSupervising(url);
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', concurrency: JOBS, heartbeatRefreshSeconds: BEAT_SECONDS });
  for (let job = 1; job <= JOBS; job++) {
    await boss.send('work', {});
    await worker.started(job);
    await systemClock.sleep(APART_MS);
  }
  // The queue is due when the database is back, for both: else the last look before the outage would put the next one off.
  const makeDue = () => database.query('UPDATE queue SET monitor_claim_on = NULL, monitor_on = NULL');
  await makeDue();
  await postgres.stop();
  await systemClock.sleep(OUTAGE_MS);
  await postgres.start();
  await waitFor('the database', () =>
    makeDue().then(
      () => true,
      () => false,
    ),
  );
  const looked = () =>
    database.query<{ looked: boolean }>(
      `SELECT coalesce(monitor_claim_on > pg_postmaster_start_time(), false) AS looked FROM queue WHERE name = 'work'`,
    );
  await waitFor(`${supervisor} to look at the queue again`, async () => (await looked().catch(() => []))[0]?.looked, 180_000);
  // What a pass claimed it also does, before it looks at anything else.
  await systemClock.sleep(2_000);
  const failed = await database.query(`SELECT FROM job WHERE name = 'work' AND (state <> 'active' OR retry_count > 0)`);
  expect(await database.query(`SELECT FROM job WHERE name = 'work'`)).toHaveLength(JOBS);
  return failed.length;
}

async function startSupervising(url: string): Promise<void> {
  const boss = new PgBoss({ connectionString: url, superviseIntervalSeconds: SUPERVISE_SECONDS, monitorIntervalSeconds: 60, max: 2 });
  boss.on('error', () => undefined);
  await boss.start();
  onTestFinished(() => boss.stop({ graceful: false }));
}

test('an outage of 30 s: pg-boss alone fails live jobs, the daemon that has taken over fails none', { timeout: 300_000 }, async () => {
  const [takenOver, alone] = await Promise.all([countFailed('the daemon'), countFailed('pg-boss alone')]);
  console.log(`failed of ${JOBS} live jobs: taken over ${takenOver}, pg-boss alone ${alone}`);
  expect(takenOver).toBe(0);
  expect(alone).toBeGreaterThan(0);
});
