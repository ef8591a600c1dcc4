import pg from 'pg';
import { PgBoss } from 'pg-boss';
import { expect, onTestFinished, test } from 'vitest';
import { doctor } from '../../src/cli/doctor.ts';
import type { Check } from '../../src/doctor.ts';
import { refreshHeartbeats } from '../../src/executors/health.ts';
import { listIncidents } from '../../src/incidents/listing.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Database } from '../../src/postgres/database.ts';
import { projectIncidents } from '../../src/project-incidents.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { openTestContext, sweepOnce } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';

async function createFleet() {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  return fleet;
}

/** Executors that gave themselves a name, and the one pool that carries it. */
async function createNamed(url: string, database: Database, name: string, ...ids: string[]) {
  await refreshHeartbeats(
    database,
    ids.map((executorId) => ({ executorId, applicationName: name, beatSeconds: 0.1 })),
  );
  const boss = new PgBoss({
    connectionString: url,
    application_name: name,
    supervise: false,
    schedule: false,
    registerInstance: false,
    max: 1,
  });
  boss.on('error', () => undefined);
  await boss.start();
  const stop = () => boss.stop({ graceful: false });
  onTestFinished(stop);
  return {
    fetch: async () => (await boss.fetch('work')).length,
    die: (id: string) => database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now() WHERE id = $1`, [id]),
    endSessions: async () => {
      await stop();
      await waitFor(
        'its sessions to end',
        async () => (await database.query('SELECT FROM pg_stat_activity WHERE application_name = $1', [name])).length === 0,
      );
    },
  };
}

test('a name that an application gave says whose an attempt was once no session carries it any more', async () => {
  const { url, boss, database } = await createFleet();
  const named = await createNamed(url, database, 'app', 'a');
  await boss.send('work', {});
  expect(await named.fetch()).toBe(1);
  await named.die('a');
  expect(await sweepOnce(url)).toMatchObject({ failed: 0, skipped: 0 });
  await projectIncidents(await openTestContext(url));
  expect((await listIncidents(database, { class: 'dead_executor' })).incidents, 'whoever waits for it is told').toMatchObject([
    { summary: expect.stringMatching(/one attempt is not back yet; left alone, .* "app"$/) },
  ]);
  await named.endSessions();
  expect(await sweepOnce(url)).toMatchObject({ failed: 1, recovered: [{ executorId: 'a' }] });
});

test('a session that carries it from the moment of the taking on is seen', async () => {
  const { url, boss, database } = await createFleet();
  const named = await createNamed(url, database, 'app', 'a');
  await boss.send('work', {});
  await named.fetch();
  await named.die('a');
  await named.endSessions();
  const context = await openTestContext(url);
  const dependencies = context.sweepDependencies(null, false);
  const late = new pg.Client({ connectionString: url, application_name: 'app' });
  onTestFinished(() => late.end());
  const transaction: typeof database.transaction = async (work) => {
    await late.connect();
    return database.transaction(work);
  };
  expect(await sweep({ ...dependencies, database: { ...database, transaction } })).toMatchObject({ failed: 0, skipped: 1 });
  expect(await database.query('SELECT FROM recovery')).toEqual([]);
});

test('a name that two executors carried says of none of them whose an attempt was, even when both are gone', async () => {
  const { url, boss, database } = await createFleet();
  const named = await createNamed(url, database, 'app', 'a', 'b');
  await boss.send('work', {});
  await named.fetch();
  await named.die('a');
  await named.endSessions();
  expect(await sweepOnce(url)).toMatchObject({ failed: 0, recovered: [] });
  await named.die('b');
  expect(await sweepOnce(url)).toMatchObject({ failed: 0, recovered: [] });
});

test('an executor that had ended before the attempt began shares nothing of it', async () => {
  const { url, boss, database } = await createFleet();
  const named = await createNamed(url, database, 'app', 'earlier', 'a');
  await named.die('earlier');
  await boss.send('work', {});
  await named.fetch();
  await named.die('a');
  await named.endSessions();
  expect(await sweepOnce(url)).toMatchObject({ failed: 1, recovered: [{ executorId: 'a' }] });
});

test('what carries no name belongs to nobody, not to an executor without a name either', async () => {
  const { url, boss, database } = await createFleet();
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  const nameless = new PgBoss({
    db: { executeSql: (text: string, values?: unknown[]) => pool.query(text, values) },
    supervise: false,
    schedule: false,
    registerInstance: false,
  });
  await nameless.start();
  onTestFinished(() => nameless.stop({ graceful: false }));
  await boss.send('work', {});
  expect(await nameless.fetch('work')).toHaveLength(1);
  // At work on it, it needs no session.
  await pool.end();
  await database.query(`SELECT heartbeat('e', '')`);
  await database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now() WHERE id = 'e'`);
  expect(await sweepOnce(url)).toMatchObject({ failed: 0, recovered: [] });
  expect(await database.query(`SELECT FROM job WHERE state = 'active'`)).toHaveLength(1);
});

test('workers that share a name, or have none, are an incident and a doubt of the doctor; senders are not', async () => {
  const { url, database } = await createFleet();
  await startTestDaemon(url, { RECLAIMD_NODE: 'here' });
  const senders = ['s1', 's2'].map((id) => `('${id}', 'pgboss', 'web', 30)`).join();
  await database.query(`INSERT INTO executor (id, kind, application_name, beat_seconds) VALUES ${senders}`);
  await refreshHeartbeats(database, [
    { executorId: 'a', applicationName: 'app', queues: ['work'] },
    { executorId: 'b', applicationName: 'app' },
    { executorId: 'c', applicationName: '' },
    { executorId: 'd', applicationName: 'alone' },
  ]);
  const open = async () => (await listIncidents(database, { class: 'ownership_missing' })).incidents;
  await waitFor('both incidents', async () => (await open()).length === 2);
  const [shared, nameless] = (await open()).sort((one, other) => other.fingerprint.length - one.fingerprint.length);
  expect(shared).toMatchObject({
    summary: expect.stringContaining('2 executors share the application_name "app"'),
    evidence: { applicationName: 'app', executors: ['a', 'b'] },
    affected: 2,
    queues: ['work'],
  });
  expect(nameless).toMatchObject({ summary: expect.stringContaining('no application_name'), evidence: { executors: ['c'] } });
  const lines: string[] = [];
  const surroundings = {
    env: { DATABASE_URL: url, RECLAIMD_SYSTEMD: 'off' },
    out: (text: string) => lines.push(text),
    signal: new AbortController().signal,
  };
  await doctor(surroundings, { json: true });
  const { checks } = JSON.parse(lines.join('\n')) as { checks: Check[] };
  expect(checks.find(({ name }) => name === 'names')).toMatchObject({
    status: 'warn',
    detail: expect.stringMatching(/no application_name.*\(c\).*"app".*\(a, b\)/),
  });

  await refreshHeartbeats(database, [
    { executorId: 'b', applicationName: 'app', stopped: true },
    { executorId: 'c', applicationName: 'named' },
  ]);
  await waitFor('the end of both', async () => (await open()).length === 0);
});
