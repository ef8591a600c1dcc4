import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { fallSilent } from '../support/silence.ts';
import { twoSweepsPass } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

/** Two workers whose sessions carry the same name, each with a job of its queue; only the first has registered. */
async function createNamesakes(applicationName: string) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'first' }, { name: 'second' }] });
  const { url, boss, database } = fleet;
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await startTestDaemon(url);
  // With room for two jobs each goes on polling: its sessions stay.
  const busy = async (queue: string, registers: boolean) => {
    await boss.send(queue, {});
    const worker = await spawnWorker({ url, queues: [queue], mode: 'forever', concurrency: 2, applicationName, registers });
    await worker.started(1);
    return worker;
  };
  const registered = await busy('first', true);
  const unregistered = await busy('second', false);
  await waitFor('the adoption', async () => (await database.query('SELECT FROM executor WHERE witness_node IS NOT NULL')).length === 1);
  return {
    ...fleet,
    registered,
    unregistered,
    recoveries: () => database.query<{ queue: string }>('SELECT queue FROM recovery ORDER BY queue'),
  };
}

test('the death of a worker without a name takes nothing from another that has none', async () => {
  const { registered, recoveries, database } = await createNamesakes('');
  registered.kill('SIGKILL');
  await waitFor('its death', async () => (await database.query('SELECT FROM executor WHERE proof IS NOT NULL')).length === 1);
  await twoSweepsPass(database);
  expect(await recoveries()).toEqual([]);
});

test('nor does that of one whose name, given by the application, another carries who never registered', async () => {
  const { registered, unregistered, recoveries, database } = await createNamesakes('app');
  registered.kill('SIGKILL');
  await registered.exited;
  await waitFor(
    'the daemon to let go of it',
    async () => (await database.query('SELECT FROM executor WHERE witness_node IS NULL')).length === 1,
  );
  await twoSweepsPass(database);
  expect(await recoveries()).toEqual([]);
  unregistered.kill('SIGKILL');
  await unregistered.exited;
  await fallSilent(database, 3600, [registered]);
  await waitFor('both jobs to come back, for nobody carries the name now', async () => (await recoveries()).length === 2);
});
