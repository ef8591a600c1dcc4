import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { spawnDaemon } from '../support/daemon-process.ts';
import { createFleetDatabase } from '../support/database.ts';
import { fallSilent } from '../support/silence.ts';
import { twoSweepsPass } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const run = promisify(execFile);
const WORKER = fileURLToPath(new URL('../support/worker-main.ts', import.meta.url));
// Making a pid namespace takes root.
const isRoot = process.getuid?.() === 0;
// Not in a container.
const seesKernelThreads = existsSync('/proc/2/comm') && readFileSync('/proc/2/comm', 'utf8').trim() === 'kthreadd';

async function createFleet() {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await fleet.boss.send('work', {});
  return fleet;
}

async function startDaemonUntilItSays(url: string, words: string): Promise<void> {
  const said: string[] = [];
  const ignore = () => undefined;
  const warn = (_: object | string, message = '') => void said.push(message);
  await startTestDaemon(url, {}, { log: { info: ignore, error: ignore, debug: ignore, warn } });
  await waitFor(`the daemon to say "${words}"`, () => said.some((message) => message.includes(words)));
}

test.skipIf(!isRoot)("a process of this host that carries a contained worker's pid is never its proof, dead or alive", async () => {
  const { url, database } = await createFleet();
  const namesake = spawn('sleep', ['600']);
  onTestFinished(() => void namesake.kill('SIGKILL'));
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', ownPids: namesake.pid ?? 0 });
  await worker.started(1);
  expect(await database.query('SELECT pid FROM instance')).toEqual([{ pid: namesake.pid }]);

  await startDaemonUntilItSays(url, 'carried by several processes');
  namesake.kill('SIGKILL');
  await once(namesake, 'exit');
  await twoSweepsPass(database);
  expect(await database.query('SELECT verdict, proof, witness_node FROM executor')).toEqual([
    { verdict: 'alive', proof: null, witness_node: null },
  ]);
  expect(await database.query('SELECT FROM recovery')).toEqual([]);

  worker.kill('SIGKILL');
  await worker.exited;
  await fallSilent(database, 3600, [worker]);
  await waitFor('its silence to speak for it', async () => (await database.query('SELECT FROM recovery')).length > 0);
  expect(await database.query('SELECT verdict, proof FROM recovery')).toEqual([{ verdict: 'missing', proof: null }]);
});

test.skipIf(!isRoot)(
  'a worker whose pid a contained process carries too is not taken while it hangs, and its end is no proof',
  async () => {
    const { url, database } = await createFleet();
    const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever' });
    await worker.started(1);
    const fork = 'echo $(($0 - 1)) > /proc/sys/kernel/ns_last_pid; sleep 600; exit $?';
    const contained = spawn('unshare', ['--pid', '--fork', '--kill-child', 'sh', '-c', fork, String(worker.pid)]);
    onTestFinished(() => void contained.kill('SIGKILL'));
    await startDaemonUntilItSays(url, 'carried by several processes');
    worker.kill('SIGSTOP');
    await fallSilent(database, 3600, [worker], { keepsStart: true });
    await waitFor('its verdict', async () => (await database.query(`SELECT FROM executor WHERE verdict = 'hung'`)).length > 0);
    await twoSweepsPass(database);
    expect(await database.query('SELECT FROM recovery')).toEqual([]);
    worker.kill('SIGKILL');
    await waitFor('its silence to speak for it', async () => (await database.query('SELECT FROM recovery')).length > 0);
    expect(await database.query('SELECT verdict, proof FROM recovery')).toEqual([{ verdict: 'missing', proof: null }]);
  },
);

test.skipIf(!isRoot)('a process that came later to the pid of a contained worker is not taken for it', async () => {
  const { url, database } = await createFleet();
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', ownPids: true });
  await worker.started(1);
  const late = spawn('sleep', ['600']);
  onTestFinished(() => void late.kill('SIGKILL'));
  await database.query(`UPDATE instance SET pid = $1, started_on = started_on - interval '1 minute'`, [late.pid]);
  await startDaemonUntilItSays(url, 'younger process');
  late.kill('SIGKILL');
  await once(late, 'exit');
  expect(await database.query('SELECT proof, witness_node FROM executor')).toEqual([{ proof: null, witness_node: null }]);
});

test('a process that came later to the pid of a worker that nobody had seen keeps none of its jobs', async () => {
  const { url, database } = await createFleet();
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever' });
  await worker.started(1);
  worker.kill('SIGKILL');
  await worker.exited;
  const late = spawn('sleep', ['600']);
  onTestFinished(() => void late.kill('SIGKILL'));
  await database.query(`UPDATE instance SET pid = $1`, [late.pid]);
  await fallSilent(database, 3600, [worker]);
  await startTestDaemon(url);
  await waitFor('its silence to speak for it', async () => (await database.query('SELECT FROM recovery')).length > 0);
  expect(await database.query('SELECT verdict, proof FROM recovery')).toEqual([{ verdict: 'missing', proof: null }]);
});

test.skipIf(!isRoot)('a daemon in a container takes no process of it for a worker of another: silence speaks', async () => {
  const { url, database } = await createFleet();
  // Each is pid 1 where it is, under one host name.
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', ownPids: true });
  await worker.started(1);
  const daemon = await spawnDaemon(url, { RECLAIMD_PROCESSES: 'auto' }, { contained: true });
  expect(daemon.log.filter(({ msg }) => msg.includes('processes are not looked at'))).toHaveLength(1);
  await waitFor('it to be known', async () => (await database.query('SELECT FROM executor')).length > 0);
  await twoSweepsPass(database);
  expect(await database.query('SELECT pid, verdict, proof, witness_node FROM executor')).toEqual([
    { pid: 1, verdict: 'alive', proof: null, witness_node: null },
  ]);
  worker.kill('SIGKILL');
  await worker.exited;
  await fallSilent(database, 3600, [worker]);
  await waitFor('its silence to speak for it', async () => (await database.query('SELECT FROM recovery')).length > 0);
});

test.skipIf(!isRoot || !seesKernelThreads)('a thread of the kernel is nobody, whoever has registered under its number', async () => {
  const { url, database } = await createFleet();
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', ownPids: true });
  await worker.started(1);
  await database.query('UPDATE instance SET pid = 2');
  await startDaemonUntilItSays(url, 'the kernel or');
  expect(await database.query('SELECT proof, witness_node FROM executor')).toEqual([{ proof: null, witness_node: null }]);
});

test.skipIf(!isRoot)('the handle of a dead process stays gone when its pid is given to another', async () => {
  const main = fileURLToPath(new URL('../support/recycle-main.ts', import.meta.url));
  const { stdout } = await run('unshare', ['--pid', '--fork', '--mount-proc', '--kill-child', process.execPath, main]);
  expect(JSON.parse(stdout)).toEqual({ recycled: true, before: false, after: true, successor: false, told: true });
});

test('a worker that is dead but that its parent has not waited for is gone: its job comes back', async () => {
  const { url, database } = await createFleet();
  // The shell becomes a sleep, which never waits for the child that it has.
  const options = JSON.stringify({ url, queues: ['work'], mode: 'forever' });
  const parent = spawn('sh', ['-c', '"$@" & exec sleep 600', 'sh', process.execPath, WORKER, options], { stdio: 'ignore' });
  onTestFinished(() => void parent.kill('SIGKILL'));
  await startTestDaemon(url);
  const pid = await waitFor('its adoption', async () => {
    const [row] = await database.query<{ pid: number }>('SELECT pid FROM executor WHERE witness_node IS NOT NULL');
    return row?.pid;
  });
  onTestFinished(() => void process.kill(pid, 'SIGKILL'));
  await waitFor('its job', async () => (await database.query(`SELECT FROM job WHERE state = 'active'`)).length > 0);
  process.kill(pid, 'SIGKILL');
  await waitFor('its job to come back', async () => (await database.query('SELECT FROM recovery')).length > 0);
  expect(readFileSync(`/proc/${pid}/stat`, 'utf8')).toContain(') Z ');
  expect(await database.query('SELECT proof FROM recovery')).toEqual([{ proof: 'process_gone' }]);
});
