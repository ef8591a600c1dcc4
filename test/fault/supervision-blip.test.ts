import { expect, test } from 'vitest';
import { systemClock } from '../../src/runtime/clock.ts';
import { createBreakingProxy } from '../support/breaking-proxy.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { holdTurn, releaseTurn } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

/** Of the 10 s that a job may be silent; by then its next beat, at 5 s, is about to come. */
const CUT_AT_SECONDS = 4.6;
/** So long that the beat after that one fails as well, and shorter than three beats of the daemon. */
const CUT_MS = 5_300;

interface JobRow {
  state: string;
  retryCount: number;
  silentSeconds: number;
}

test('every connection is cut for a moment in which a live job misses two beats: taken over, it is not failed', async () => {
  const { boss, url, database } = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3, heartbeatSeconds: 10 }] });
  const proxy = await createBreakingProxy(url);
  const worker = await spawnWorker({ url: proxy.url, queues: ['work'], mode: 'forever' });
  await startTestDaemon(proxy.url, { RECLAIMD_PGBOSS_SUPERVISE: 'true', RECLAIMD_OUTAGE_GRACE: '15s' });
  await boss.send('work', {});
  await worker.started(1);
  const [job, nodeSeconds, comeback] = [readJob, readNode, readComeback];
  await waitFor(
    'two beats of the job',
    async () => (await database.query(`SELECT FROM job WHERE heartbeat_on > started_on + interval '9 s'`)).length > 0,
  );
  // The moment that is the worst: the daemon has just beaten, and the job is about to.
  await waitFor('the worst moment', async () => (await job()).silentSeconds > CUT_AT_SECONDS && (await nodeSeconds()) < 1);
  await holdTurn(database, 'supervise');
  proxy.breakNow();
  await systemClock.sleep(CUT_MS);
  // Due at once, for whoever comes back first.
  await database.query('UPDATE queue SET monitor_claim_on = NULL, monitor_on = NULL');
  await releaseTurn(database, 'supervise');
  proxy.mend();
  expect((await job()).silentSeconds, 'its beat is over').toBeGreaterThan(9);
  await waitFor('the beat after', async () => (await job()).silentSeconds < 4);
  expect(await job()).toMatchObject({ state: 'active', retryCount: 0 });
  await waitFor('the comeback', async () => /was cut off/.test((await comeback()) ?? ''));
  await waitFor(
    'a pass, when the grace is over',
    async () => (await database.query('SELECT FROM queue WHERE monitor_claim_on IS NOT NULL')).length > 0,
  );
  expect(await job()).toMatchObject({ state: 'active', retryCount: 0 });

  async function readJob(): Promise<JobRow> {
    const [row] = await database.query<JobRow>(
      `SELECT state::text, retry_count AS "retryCount", extract(epoch FROM now() - heartbeat_on)::float8 AS "silentSeconds" FROM job WHERE name = 'work'`,
    );
    if (!row) throw new Error('the job is gone');
    return row;
  }
  async function readNode(): Promise<number> {
    return (await database.query<{ age: number }>('SELECT extract(epoch FROM now() - beat_at)::float8 AS age FROM node'))[0]?.age ?? 0;
  }
  async function readComeback(): Promise<string | null | undefined> {
    return (await database.query<{ reason: string | null }>('SELECT comeback_reason AS reason FROM fleet'))[0]?.reason;
  }
});
