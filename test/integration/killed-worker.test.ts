import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

for (const daemons of [1, 2, 5]) {
  test(`a killed worker's jobs come back, and only its jobs, once (${daemons} daemons)`, async () => {
    const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
    await installOwnership(database, TARGET);
    const ids = await Promise.all(Array.from({ length: 8 }, () => boss.send('work', {})));
    const doomed = await spawnWorker({ url, queues: ['work'], mode: 'forever', batchSize: 4 });
    await doomed.started(4);
    const survivor = await spawnWorker({ url, queues: ['work'], mode: 'forever', batchSize: 4 });
    await survivor.started(4);
    for (let index = 0; index < daemons; index++) await startTestDaemon(url, { RECLAIMD_NODE: `node-${index}` });
    await waitFor('both workers to be adopted', async () => {
      const rows = await database.query('SELECT FROM executor WHERE witness_node IS NOT NULL');
      return rows.length === 2;
    });
    doomed.kill('SIGKILL');
    const taken = new Set((await doomed.started(4)).map(({ id }) => id));
    const recovered = await waitFor('the jobs to come back', async () => {
      const rows = await database.query<{ id: string; executor: string; proof: string; outcome: string }>(
        'SELECT job_id AS id, executor_id AS executor, proof, outcome FROM recovery',
      );
      return rows.length >= 4 && rows;
    });
    expect(recovered.map(({ id }) => id).sort()).toEqual([...taken].sort());
    expect(new Set(recovered.map(({ executor }) => executor))).toEqual(new Set([doomed.instance]));
    expect(new Set(recovered.map(({ proof }) => proof))).toEqual(new Set(['process_gone']));
    const states = await database.query<{ id: string; state: string }>(`SELECT id, state::text FROM job WHERE name = 'work'`);
    expect(states).toHaveLength(ids.length);
    for (const { id, state } of states) expect(state).toBe(taken.has(id) ? 'retry' : 'active');
  });
}
