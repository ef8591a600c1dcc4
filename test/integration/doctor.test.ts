import { PgBoss } from 'pg-boss';
import { expect, onTestFinished, test } from 'vitest';
import { doctor } from '../../src/cli/doctor.ts';
import type { Check } from '../../src/doctor.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase, createTestDatabase } from '../support/database.ts';
import { createScriptedBus } from '../support/scripted-bus.ts';
import { waitFor } from '../support/wait.ts';

async function consult(url: string, env: Record<string, string> = {}, options: { strict?: true } = {}) {
  const lines: string[] = [];
  const surroundings = {
    env: { DATABASE_URL: url, RECLAIMD_NODE: 'test', RECLAIMD_SYSTEMD: 'off', ...env },
    out: (text: string) => lines.push(text),
    signal: new AbortController().signal,
  };
  const code = await doctor(surroundings, { json: true, ...options });
  const { checks } = JSON.parse(lines.join('\n')) as { checks: Check[] };
  return { code, checks, of: (name: string) => checks.find((check) => check.name === name) };
}

test('a host where everything is in place: no failure', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'mail' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await startTestDaemon(url);
  await waitFor('the daemon', async () => (await database.query('SELECT FROM node')).length === 1);
  const { code, checks, of } = await consult(url);
  expect(code).toBe(0);
  for (const name of ['database', 'schema', 'pg-boss', 'privileges', 'ownership', 'daemon'])
    expect([name, of(name)?.status]).toEqual([name, 'ok']);
  expect(checks.filter(({ status, mend }) => (status === 'warn' || status === 'fail') && !mend)).toEqual([]);
  expect((await consult(url, {}, { strict: true })).code).toBe(1);
});

test('what is missing fails, with what would mend it', async () => {
  const bare = await createTestDatabase();
  expect(await consult(bare.url)).toMatchObject({ code: 1 });
  expect((await consult(bare.url)).of('schema')).toMatchObject({ status: 'fail', mend: expect.stringContaining('reclaimd migrate') });
  const gone = await consult('postgres://nobody@127.0.0.1:1/none');
  expect(gone.of('database')).toMatchObject({ status: 'fail', mend: expect.stringContaining('DATABASE_URL') });
  const { url, boss } = await createFleetDatabase({ queues: [{ name: 'mail', retryLimit: 0, expireInSeconds: 7200 }] });
  const fleet = await consult(url, { RECLAIMD_UNITS: 'app', RECLAIMD_ACTORS_FILE: '/does/not/exist' });
  expect(fleet.code).toBe(1);
  expect(fleet.of('ownership')).toMatchObject({ status: 'fail', mend: expect.stringContaining('install-ownership') });
  expect(fleet.of('daemon')).toMatchObject({ status: 'warn' });
  expect(fleet.of('systemd')).toMatchObject({ status: 'fail', detail: expect.stringContaining('no systemd') });
  expect(fleet.of('actors')).toMatchObject({ status: 'fail', detail: expect.stringContaining('/does/not/exist') });
  expect(fleet.checks.filter(({ name }) => name === 'queue mail')).toMatchObject([{ status: 'warn' }, { status: 'warn' }]);
  await boss.deleteQueue('mail');
  expect((await consult(url)).of('queues')).toMatchObject({ status: 'ok' });
  // Advice may hold a colon of its own.
  const supervising = new PgBoss({ connectionString: url, schedule: false, max: 2 });
  await supervising.start();
  onTestFinished(() => supervising.stop({ graceful: false }));
  const twice = (await consult(url, { RECLAIMD_PGBOSS_SUPERVISE: 'true', RECLAIMD_OUTAGE_GRACE: '1m' })).of('queues');
  expect(twice).toMatchObject({ status: 'warn', mend: 'set supervise: false on them', detail: expect.stringMatching(/after an outage$/) });
});

test('a role without its privileges is told which are missing', async () => {
  const { url, database } = await createFleetDatabase();
  const role = `poor_${new URL(url).pathname.slice(1)}`;
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'poor'`);
  await database.query(`GRANT USAGE ON SCHEMA reclaimd, pgboss TO ${role}`);
  await database.query(`GRANT SELECT ON ALL TABLES IN SCHEMA reclaimd TO ${role}`);
  await database.query(`GRANT SELECT ON ALL TABLES IN SCHEMA pgboss TO ${role}`);
  await database.query(`GRANT INSERT ON reclaimd.fleet TO ${role}`);
  const poor = new URL(url);
  poor.username = role;
  poor.password = 'poor';
  const { code, of } = await consult(poor.href);
  expect(code).toBe(1);
  expect(of('privileges')).toMatchObject({
    status: 'fail',
    detail: expect.stringContaining("change pg-boss's jobs"),
    mend: expect.stringContaining('grants'),
  });
});

test('an audit that is not chained, and an archive that cannot be written, are told', async () => {
  const { url, database } = await createFleetDatabase();
  expect((await consult(url)).of('audit')).toMatchObject({ status: 'ok' });
  await database.query(
    `INSERT INTO audit (at, actor, action, target, outcome, node, detail) VALUES (now() - interval '5 minutes', 'a', 'sweep', 't', 'done', 'n', '{}')`,
  );
  const fleet = await consult(url, { RECLAIMD_ARCHIVE_DIR: '/does/not/exist' });
  expect(fleet.of('audit')).toMatchObject({ status: 'warn', detail: expect.stringMatching(/30\d s are not chained/) });
  expect(fleet.of('archive')).toMatchObject({ status: 'fail', mend: expect.stringContaining('RECLAIMD_ARCHIVE_DIR') });
  await database.query('ALTER TABLE audit_head DISABLE TRIGGER USER');
  await database.query('DELETE FROM audit_head');
  expect((await consult(url, { RECLAIMD_ARCHIVE_DIR: '/tmp' })).of('audit')).toMatchObject({ status: 'fail' });
});

test('a bus that does not answer is what is to be mended, soon told, and nothing is said of what it would tell', async () => {
  const { socket } = await createScriptedBus(() => undefined);
  const { url } = await createFleetDatabase();
  const startedAt = performance.now();
  const { of } = await consult(url, { RECLAIMD_SYSTEMD: 'system', RECLAIMD_SYSTEMD_BUS: socket, RECLAIMD_UNITS: 'app' });
  expect(performance.now() - startedAt).toBeLessThan(8_000);
  expect(of('systemd')).toMatchObject({ status: 'fail', mend: expect.stringContaining('dbus.service') });
  for (const name of ['unit', 'polkit', 'journal'])
    expect(of(name)).toMatchObject({ status: 'skipped', detail: expect.stringContaining('mend that first') });
});
