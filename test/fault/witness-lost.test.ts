import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { spawnDaemon } from '../support/daemon-process.ts';
import { createFleetDatabase } from '../support/database.ts';
import { fallSilent } from '../support/silence.ts';
import { twoSweepsPass } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

/** What the daemon that looks on waits for after the loss of a witness: its start-up delay, and no grace. */
const STARTUP_DELAY = '5m';

/** A worker that hangs, with a job, on a host whose daemon sees its process; the daemon of another host looks on. */
async function createHung() {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
  const { url, boss, database } = fleet;
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const startBeside = () => spawnDaemon(url, { RECLAIMD_NODE: 'beside' }, { hostname: 'far' });
  await startTestDaemon(url, { RECLAIMD_NODE: 'onlooker', RECLAIMD_STARTUP_DELAY: STARTUP_DELAY });
  await waitFor('its beat', async () => (await database.query('SELECT FROM node')).length === 1);
  await database.query(`UPDATE node SET started_at = started_at - interval '1 hour'`);
  const beside = await startBeside();
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', hostname: 'far' });
  await boss.send('work', {});
  await worker.started(1);
  await waitFor('its adoption', async () => (await database.query('SELECT FROM executor WHERE witness_node IS NOT NULL')).length === 1);
  worker.kill('SIGSTOP');
  await fallSilent(database, 3600, [worker]);
  const judged = (verdict: string, reason: string) =>
    waitFor(
      `the verdict ${verdict}, ${reason}`,
      async () => (await database.query('SELECT FROM executor WHERE (verdict, verdict_reason) = ($1, $2)', [verdict, reason])).length === 1,
    );
  await judged('hung', 'silent past 15 s, but its process is there');
  return {
    ...fleet,
    worker,
    beside,
    startBeside,
    judged,
    /** As if so much time had passed since the daemon beside it was last heard of. */
    pass: (minutes: number) =>
      database.query(
        `UPDATE daemon SET beat_at = beat_at - make_interval(mins => $1), stopped_at = stopped_at - make_interval(mins => $1)
         WHERE id = (SELECT witness_daemon_id FROM executor)`,
        [minutes],
      ),
    recoveries: () => database.query('SELECT executor_id AS executor, proof, verdict FROM recovery'),
  };
}

test('a worker that hangs is not taken while its daemon is away for less than the start-up delay, and is hung again when it is back', async () => {
  const { database, worker, beside, startBeside, judged, pass, recoveries } = await createHung();
  beside.kill('SIGTERM');
  await beside.exited;
  await judged('hung', 'silent past 15 s, but its process was there when its daemon was last heard of');
  await twoSweepsPass(database);
  expect(await recoveries()).toEqual([]);
  await pass(4);
  await judged('missing', 'silent past 15 s');
  await twoSweepsPass(database);
  expect(await recoveries()).toEqual([]);
  await startBeside();
  await judged('hung', 'silent past 15 s, but its process is there');
  await twoSweepsPass(database);
  worker.kill('SIGCONT');
  await judged('alive', 'beats');
  expect(await recoveries()).toEqual([]);
  expect(await database.query('SELECT state::text, retry_count FROM job')).toEqual([{ state: 'active', retry_count: 0 }]);
});

test.each(['SIGTERM', 'SIGKILL'] as const)('a host that is gone with its daemon (%s) gives its jobs back after that', async (signal) => {
  const { worker, beside, judged, pass, recoveries } = await createHung();
  beside.kill(signal);
  await beside.exited;
  worker.kill('SIGKILL');
  await pass(4);
  await judged('missing', 'silent past 15 s');
  expect(await recoveries()).toEqual([]);
  await pass(1);
  await waitFor('its job to come back', async () => (await recoveries()).length > 0);
  expect(await recoveries()).toEqual([{ executor: worker.instance, proof: null, verdict: 'missing' }]);
});
