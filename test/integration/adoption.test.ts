import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { hostname } from 'node:os';
import { expect, onTestFinished, test } from 'vitest';
import { createAdoption, type ProcessTable } from '../../src/executors/adoption.ts';
import { listExecutorHealth, refreshHeartbeats } from '../../src/executors/health.ts';
import { CUT_OFF_AFTER_SECONDS } from '../../src/fleet/beat.ts';
import { saveBeat, saveNodeStop } from '../../src/fleet/queries.ts';
import { isPidAmbiguous, openProcess, readBootId, readPidNamespace, secondsSinceBoot } from '../../src/host/process.ts';
import { registry } from '../../src/pgboss/job-store.ts';
import type { Database } from '../../src/postgres/database.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { createFleetDatabase, silentLog } from '../support/database.ts';
import { createExecutor } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const PROCESSES: ProcessTable = {
  bootId: readBootId(),
  pidNamespace: readPidNamespace(),
  secondsSinceBoot,
  open: openProcess,
  isPidAmbiguous,
};

function createTestAdoption(database: Database, more: { node?: string; daemonId?: string; processes?: Partial<ProcessTable> } = {}) {
  const deaths: string[] = [];
  const adoption = createAdoption({
    database,
    registry,
    clock: systemClock,
    log: silentLog,
    host: hostname(),
    node: more.node ?? 'n',
    daemonId: more.daemonId ?? randomUUID(),
    stack: 'blue',
    env: 'prod',
    processes: { ...PROCESSES, ...more.processes },
    onDeath: (id, proof) => deaths.push(`${id} ${proof}`),
  });
  onTestFinished(() => adoption.close());
  return { ...adoption, deaths };
}

/** A process that is nobody's executor, and a registered executor that claims its pid. */
async function registerProcess(database: Database, id: string) {
  const child = spawn('sleep', ['60']);
  onTestFinished(() => void child.kill('SIGKILL'));
  await database.query('SELECT heartbeat($1, $1, 5, host => $2, pid => $3)', [id, hostname(), child.pid]);
  return {
    kill: async () => {
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

/** Two beats and more; the executors here beat every 5 s. */
const missBeats = (database: Database, id: string) =>
  database.query(`UPDATE executor SET beat_at = now() - interval '11 seconds' WHERE id = $1`, [id]);

test('a process of this host is adopted with the scope of its daemon, and its end is a proven death', async () => {
  const { database } = await createFleetDatabase();
  const child = await registerProcess(database, 'e');
  const { adopt, watch, size, deaths } = createTestAdoption(database);
  await adopt();
  expect(size()).toBe(1);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'alive', stack: 'blue', env: 'prod', witnessNode: 'n' }]);
  await watch();
  expect(deaths).toEqual([]);
  await child.kill();
  await watch();
  expect(deaths).toEqual(['e process_gone']);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'dead', proof: 'process_gone' }]);
});

test('a pid that is younger than the registration is never adopted', async () => {
  const { database } = await createFleetDatabase();
  const child = await registerProcess(database, 'e');
  await database.query(`UPDATE executor SET started_at = now() - interval '1 hour'`);
  const { adopt, watch, size, deaths } = createTestAdoption(database);
  await adopt();
  await child.kill();
  await watch();
  expect([size(), deaths]).toEqual([0, []]);
});

test('nor one whose beats are not fresh, nor one whose pid several processes carry', async () => {
  const { database } = await createFleetDatabase();
  await registerProcess(database, 'e');
  const ambiguous = createTestAdoption(database, { processes: { isPidAmbiguous: () => true } });
  await ambiguous.adopt();
  expect(ambiguous.size()).toBe(0);
  await database.query(`UPDATE executor SET beat_at = now() - interval '11 seconds'`);
  const late = createTestAdoption(database);
  await late.adopt();
  expect(late.size()).toBe(0);
});

test('one whose beats are not fresh is seen without proof: while its process is there, its silence is none', async () => {
  const { database } = await createFleetDatabase();
  const child = await registerProcess(database, 'e');
  await database.query(`UPDATE executor SET beat_at = now() - interval '16 seconds'`);
  const daemonId = randomUUID();
  const beat = { node: 'n', daemonId, host: hostname(), pid: 1, version: '0', bootId: null, stack: null, env: null };
  await saveBeat(database, beat, CUT_OFF_AFTER_SECONDS);
  const first = createTestAdoption(database, { daemonId });
  await first.adopt();
  await first.adopt();
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'hung', witnessed: false, sighted: true, env: null }]);

  await saveNodeStop(database, 'n', daemonId);
  expect(await listExecutorHealth(database), 'its daemon has said goodbye').toMatchObject([{ verdict: 'hung', sighted: false }]);
  await database.query(`UPDATE daemon SET stopped_at = now() - interval '16 seconds'`);
  expect(await listExecutorHealth(database), 'long ago').toMatchObject([{ verdict: 'missing', sighted: false }]);
  await database.query('UPDATE daemon SET stopped_at = NULL');

  await child.kill();
  await first.adopt();
  expect(first.deaths).toEqual([]);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'missing', proof: null, unseenSeconds: null }]);
});

test('where the end of a process could not be told, nothing is seen without proof: it would be there for ever', async () => {
  const { database } = await createFleetDatabase();
  await registerProcess(database, 'e');
  await database.query(`UPDATE executor SET beat_at = now() - interval '16 seconds'`);
  const daemonId = randomUUID();
  const beat = { node: 'n', daemonId, host: hostname(), pid: 1, version: '0', bootId: null, stack: null, env: null };
  await saveBeat(database, beat, CUT_OFF_AFTER_SECONDS);
  await createTestAdoption(database, { daemonId, processes: { isPidAmbiguous: () => 'unknown' } }).adopt();
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'missing', sighted: false }]);
});

test('sessions that outlive the process refute that it was the executor', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  const child = await registerProcess(database, 'e');
  const executor = await createExecutor(url, database, 'e');
  await executor.fetch('work');
  // Only whoever has beaten lately is adopted.
  await database.query('UPDATE executor SET host = $1, beat_at = now(), beat_seconds = 30 WHERE id = $2', [hostname(), 'e']);
  const { adopt, watch, size, deaths } = createTestAdoption(database);
  await adopt();
  expect(size()).toBe(1);
  const other = await registerProcess(database, 'other');
  await adopt();
  await child.kill();
  await watch();
  expect([size(), deaths], 'it may be about to end').toEqual([2, []]);
  await other.kill();
  await watch();
  expect(deaths, "another's death does not wait for that").toEqual(['other process_gone']);
  await waitFor('it to be let go', async () => {
    await watch();
    return size() === 0;
  });
  expect(deaths).toEqual(['other process_gone']);
  expect(await database.query(`SELECT proof, witness_node FROM executor WHERE id = 'e'`)).toEqual([{ proof: null, witness_node: null }]);
});

test('a death while no daemon ran is proven by the next one, from what was recorded', async () => {
  const { database } = await createFleetDatabase();
  const gone = await registerProcess(database, 'gone');
  await registerProcess(database, 'there');
  await createTestAdoption(database).adopt();
  await gone.kill();
  const next = createTestAdoption(database);
  await next.adopt();
  expect(next.deaths, 'a beat may yet come').toEqual([]);
  await missBeats(database, 'gone');
  await next.adopt();
  expect(next.deaths).toEqual(['gone process_gone']);
  expect(next.size()).toBe(1);
});

test('a daemon that cannot see whether a process is there proves nothing, however silent its executor', async () => {
  const { database } = await createFleetDatabase();
  await registerProcess(database, 'e');
  await createTestAdoption(database).adopt();
  await missBeats(database, 'e');
  const blind = createTestAdoption(database, { processes: { open: () => 'unknown' } });
  await blind.adopt();
  const other = createTestAdoption(database, { node: 'other', processes: { open: () => 'unknown' } });
  await other.adopt();
  expect([...blind.deaths, ...other.deaths]).toEqual([]);
  expect(await listExecutorHealth(database)).toMatchObject([{ proof: null }]);
});

test('while not every process can be seen nobody is adopted; when they can, it is made up for', async () => {
  const { database } = await createFleetDatabase();
  await registerProcess(database, 'e');
  let sight: boolean | 'unknown' = 'unknown';
  const { adopt, size } = createTestAdoption(database, { processes: { isPidAmbiguous: () => sight } });
  await adopt();
  expect(size()).toBe(0);
  sight = false;
  await adopt();
  expect(size()).toBe(1);
});

test('after a reboot the old pids prove their death; from another pid namespace or node they prove nothing', async () => {
  const { database } = await createFleetDatabase();
  await registerProcess(database, 'e');
  await createTestAdoption(database).adopt();
  await database.query(`UPDATE executor SET beat_at = now() - interval '1 hour'`);
  const elsewhere = createTestAdoption(database, { processes: { pidNamespace: 'pid:[0]', open: () => 'gone' } });
  await elsewhere.adopt();
  const namesake = createTestAdoption(database, {
    node: 'other',
    processes: { bootId: 'another', secondsSinceBoot: () => 60, open: () => 'gone' },
  });
  await namesake.adopt();
  expect([...elsewhere.deaths, ...namesake.deaths]).toEqual([]);
  const rebooted = createTestAdoption(database, { processes: { bootId: 'another', secondsSinceBoot: () => 60 } });
  await rebooted.adopt();
  expect(rebooted.deaths).toEqual(['e host_rebooted']);
});

/** A daemon of node `n` that has beaten. */
async function createLife(database: Database, bootId = PROCESSES.bootId ?? '') {
  const daemonId = randomUUID();
  const identity = { node: 'n', daemonId, host: hostname(), pid: 1, bootId, version: 'test', stack: null, env: null };
  const beat = () => saveBeat(database, identity, CUT_OFF_AFTER_SECONDS);
  await beat();
  return { daemonId, beat };
}

test('another daemon that is given the same node name, on another boot, neither unwitnesses nor buries who hangs', async () => {
  const { database } = await createFleetDatabase();
  await registerProcess(database, 'e');
  const first = await createLife(database);
  await createTestAdoption(database, first).adopt();
  await database.query(`UPDATE executor SET beat_at = now() - interval '1 hour'`);
  const second = await createLife(database, 'another');
  const namesake = createTestAdoption(database, { ...second, processes: { bootId: 'another', secondsSinceBoot: () => 60 } });
  await namesake.adopt();
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'hung', witnessed: true }]);
  await saveNodeStop(database, 'n', second.daemonId);
  expect(await listExecutorHealth(database), "the other's goodbye").toMatchObject([{ verdict: 'hung', witnessed: true }]);
  await saveNodeStop(database, 'n', first.daemonId);
  await second.beat();
  await namesake.adopt();
  expect(await listExecutorHealth(database), 'its own').toMatchObject([{ verdict: 'hung', witnessed: false, proof: null }]);
  await database.query(`UPDATE daemon SET beat_at = now() - interval '1 minute', stopped_at = NULL WHERE id = $1`, [first.daemonId]);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'missing', witnessed: false }]);
});

test('who was proven dead in error has no witness until it is adopted anew', async () => {
  const { database } = await createFleetDatabase();
  await registerProcess(database, 'e');
  const life = await createLife(database);
  const { adopt } = createTestAdoption(database, life);
  await adopt();
  expect(await listExecutorHealth(database)).toMatchObject([{ witnessed: true }]);
  await database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now(), last_alive_at = now()`);
  await adopt();
  await refreshHeartbeats(database, [{ executorId: 'e' }]);
  expect(await listExecutorHealth(database)).toMatchObject([{ proof: null, witnessed: false, unseenSeconds: null }]);
  await adopt();
  expect(await listExecutorHealth(database)).toMatchObject([{ witnessed: true }]);
});

test('a graceful stop that came first is no death', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  const worker = await spawnWorker({ url, queues: ['work'] });
  const { adopt, watch, deaths } = createTestAdoption(database);
  await adopt();
  worker.kill('SIGTERM');
  await worker.exited;
  await watch();
  expect(deaths).toEqual([]);
  expect(await listExecutorHealth(database)).toMatchObject([{ id: worker.instance, verdict: 'stopped' }]);
});

test('a beat after a recorded death refutes its proof', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  const worker = await spawnWorker({ url, queues: ['work'], instanceHeartbeatSeconds: 1 });
  await registry.importExecutors(database);
  await database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now() WHERE id = $1`, [worker.instance]);
  await database.query('UPDATE pgboss.instance SET heartbeat_on = clock_timestamp()');
  await registry.importExecutors(database);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'alive', proof: null }]);
});

test("an executor's own beat after its recorded death refutes the proof, and it is adopted anew", async () => {
  const { database } = await createFleetDatabase();
  await registerProcess(database, 'e');
  const { adopt, size } = createTestAdoption(database);
  await adopt();
  await database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now(), last_alive_at = now()`);
  await adopt();
  expect(size()).toBe(0);
  await refreshHeartbeats(database, [{ executorId: 'e' }]);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'alive', proof: null, witnessNode: null }]);
  await adopt();
  expect(size()).toBe(1);
});
