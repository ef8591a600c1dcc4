import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { openProcess } from '../../src/host/process.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor } from '../support/executor.ts';
import { createScriptedUnits } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

async function createOrphan() {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(fleet.database, TARGET);
  const executor = await createExecutor(fleet.url, fleet.database, 'worker');
  await fleet.boss.send('work', {});
  await executor.fetch('work');
  await executor.die();
  return fleet;
}

const metricOf = (text: string, name: string) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);

test('a daemon in a dry run sweeps, says so, and touches no job', async () => {
  const { url, database } = await createOrphan();
  const daemon = await startTestDaemon(url, { RECLAIMD_DRY_RUN: 'true', RECLAIMD_LISTEN: '127.0.0.1:0' });
  await waitFor(
    'a few sweeps',
    async () => metricOf(await (await fetch(`${daemon.url}/metrics`)).text(), 'reclaimd_loop_runs_total{loop="sweep",result="ok"}') >= 3,
  );
  expect(await database.query('SELECT state::text FROM job')).toEqual([{ state: 'active' }]);
  expect(await database.query('SELECT FROM recovery')).toEqual([]);
  expect(await (await fetch(`${daemon.url}/readyz`)).json()).toMatchObject({ ok: true, dryRun: true });
});

test('the periodic sweep finds what no notice announced', async () => {
  const { url, database } = await createOrphan();
  await startTestDaemon(url);
  await waitFor('the rescue', async () => (await database.query('SELECT FROM recovery')).length === 1);
});

test('each scope has sweeps and reconciling of its own: no environment waits for the turns of another', async () => {
  const { url, database } = await createFleetDatabase();
  await startTestDaemon(url, { RECLAIMD_NODE: 'a', RECLAIMD_ENV: 'prod' });
  await startTestDaemon(url, { RECLAIMD_NODE: 'b', RECLAIMD_ENV: 'test', RECLAIMD_STACK: 'blue' });
  const turnsOf = async (pass: string) =>
    (await database.query<{ name: string }>(`SELECT name FROM turn WHERE name LIKE $1 || '%' ORDER BY name`, [pass])).map(
      ({ name }) => name,
    );
  for (const pass of ['sweep', 'reconcile']) {
    const scopes = ['{"env":"prod","stack":null}', '{"env":"test","stack":"blue"}'];
    const expected = scopes.map((scope) => `${pass} ${scope}`);
    await waitFor(`turns of ${pass}`, async () => (await turnsOf(pass)).length > 0 && (await turnsOf(pass)).join() === expected.join());
  }
});

test('a death that another node proved is heard and swept', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  // Its own sweeps are an hour apart: only the notice can bring it.
  await startTestDaemon(url, { RECLAIMD_SWEEP_INTERVAL: '1h' });
  const executor = await createExecutor(url, database, 'worker');
  await boss.send('work', {});
  await executor.fetch('work');
  await executor.die();
  const announced = waitFor('the rescue', async () => {
    await database.query(`SELECT pg_notify('reclaimd_death', 'worker')`);
    return (await database.query('SELECT FROM recovery')).length === 1;
  });
  await announced;
});

test('a stop says goodbye to the fleet and leaves no connection', async () => {
  const { url, database } = await createFleetDatabase();
  const daemon = await startTestDaemon(url, { RECLAIMD_NODE: 'leaver', RECLAIMD_LISTEN: '127.0.0.1:0' });
  await waitFor('its first beat', async () => (await database.query('SELECT FROM node')).length === 1);
  expect(await (await fetch(`${daemon.url}/livez`)).json()).toEqual({ ok: true, stalled: [] });
  await daemon.stop();
  expect(await database.query('SELECT FROM node WHERE stopped_at IS NOT NULL')).toHaveLength(1);
  await waitFor(
    'its connections to end',
    async () => (await database.query(`SELECT FROM pg_stat_activity WHERE application_name LIKE 'reclaimd:%leaver'`)).length === 0,
  );
  await expect(fetch(`${daemon.url}/livez`)).rejects.toThrow();
});

test('the end of the terminal that it runs in is a stop, too: it says goodbye, though there is nothing left to write to', async () => {
  const { url, database } = await createFleetDatabase();
  const { PATH = '' } = process.env;
  const env = { PATH, DATABASE_URL: url, RECLAIMD_NODE: 'test', RECLAIMD_LISTEN: 'off', RECLAIMD_SYSTEMD: 'off' };
  const terminal = spawn('script', ['-qc', `exec ${process.execPath} ${MAIN} run`, '/dev/null'], {
    env,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  onTestFinished(() => void terminal.kill('SIGKILL'));
  const [node] = await waitFor('its first beat', async () => {
    const nodes = await database.query<{ pid: number }>('SELECT pid FROM node');
    return nodes.length === 1 && nodes;
  });
  terminal.kill('SIGKILL');
  await waitFor('its goodbye', async () => (await database.query('SELECT FROM node WHERE stopped_at IS NOT NULL')).length === 1);
  await waitFor('its end', () => openProcess(node?.pid ?? 0) === 'gone');
});

test('a stop does not wait for ever for what is under way: it says goodbye, and closes', async () => {
  const { url, database } = await createFleetDatabase();
  const units = createScriptedUnits();
  let asked = false;
  const list = () => {
    asked = true;
    return Promise.withResolvers<never>().promise;
  };
  const manager = { ...units.manager, list };
  const daemon = await startTestDaemon(url, { RECLAIMD_NODE: 'stuck', RECLAIMD_UNITS: 'app' }, { units: { ...units, manager } });
  await waitFor('the look at the units', () => asked);
  const startedAt = performance.now();
  await daemon.stop();
  expect(performance.now() - startedAt).toBeLessThan(11_000);
  expect(await database.query('SELECT FROM node WHERE stopped_at IS NOT NULL')).toHaveLength(1);
  await waitFor(
    'its connections to end',
    async () => (await database.query(`SELECT FROM pg_stat_activity WHERE application_name LIKE 'reclaimd:%stuck'`)).length === 0,
  );
});

test('our schema missing or of another version: the daemon says what to do, and works once it is done', async () => {
  const { url, database } = await createFleetDatabase();
  await database.query('ALTER TABLE migration RENAME TO elsewhere');
  const daemon = await startTestDaemon(url, { RECLAIMD_LISTEN: '127.0.0.1:0' });
  const ready = async () => (await fetch(`${daemon.url}/readyz`)).text();
  await waitFor('the advice', async () => (await ready()).includes('run `reclaimd migrate`'));
  await database.query('ALTER TABLE elsewhere RENAME TO migration');
  await waitFor('it to begin', async () => (await ready()).includes('"schema":"ready"'));
  await database.query(`INSERT INTO migration VALUES (9999, 'from_the_future')`);
  await waitFor('the refusal', async () => (await ready()).includes('knows only up to'));
});
