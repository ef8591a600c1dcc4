import { expect, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { refreshHeartbeats } from '../../src/executors/health.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { createFleetDatabase } from '../support/database.ts';
import { spawnWorker } from '../support/worker.ts';

async function say(url: string, ...args: string[]): Promise<string> {
  const printed: string[] = [];
  const env = { DATABASE_URL: url, RECLAIMD_STARTUP_DELAY: '0s', RECLAIMD_OUTAGE_GRACE: '0s', RECLAIMD_SYSTEMD: 'off' };
  const surroundings = { env, out: (text: string) => printed.push(text), signal: new AbortController().signal };
  await createProgram(surroundings, '0', () => undefined).parseAsync(args, { from: 'user' });
  return printed.join('\n');
}

test('while no daemon is there, status, executors and sweep see who beats all the same, and name the same restraint', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever' });
  expect(JSON.parse(await say(url, 'executors', '--json'))).toMatchObject([{ id: worker.instance, verdict: 'alive' }]);
  expect(JSON.parse(await say(url, 'status', '--json'))).toMatchObject({ executors: { alive: 1 }, restraints: [] });
  expect(await say(url, 'status')).toMatch(/^silence +counts for nothing: no daemon of the fleet beats$/m);
  await database.query(`INSERT INTO node (node, daemon_id, host, pid, version, beat_at)
    VALUES ('gone', gen_random_uuid(), 'gone', 1, '0', now() - interval '1 hour')`);
  await refreshHeartbeats(database, [{ executorId: 'silent', applicationName: 'silent', beatSeconds: 0.1 }]);
  // What was known of the worker is old: it beats on in pg-boss's registry.
  await database.query(`UPDATE executor SET beat_at = now() - interval '1 hour', session_at = NULL`);
  await database.query(`UPDATE instance SET heartbeat_on = now()`);
  for (const command of [['status'], ['executors'], ['sweep', '--dry-run', '--actor', 'ann@desk']])
    expect(await say(url, ...command)).toMatch(/held back \(cut off\): silent$/m);
  expect(await say(url, 'status')).toMatch(/^silence +counts for nothing: no daemon of the fleet beats$/m);
  expect(JSON.parse(await say(url, 'status', '--json'))).toMatchObject({ executors: { alive: 1, missing: 1 } });
});

test('status names the tables on which ownership is not recorded', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work' }, { name: 'apart', partition: true }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  expect(await say(url, 'status')).toMatch(/^ownership +recorded on 2 of 2 job tables$/m);
  await database.query('ALTER TABLE pgboss.job_common DISABLE TRIGGER ALL');
  expect(await say(url, 'status')).toMatch(/^ownership +recorded on 1 of 2 job tables, not on job_common$/m);
});

test('who may only read sees what the daemons saw last', async () => {
  const { url, database } = await createFleetDatabase();
  await say(url, 'status');
  await refreshHeartbeats(database, [{ executorId: 'e', applicationName: 'e' }]);
  const reader = new URL(url);
  reader.username = `reader_${reader.pathname.slice(1)}`;
  reader.password = 'x';
  await database.query(`CREATE ROLE ${reader.username} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA reclaimd, pgboss TO ${reader.username};
    GRANT SELECT ON ALL TABLES IN SCHEMA reclaimd, pgboss TO ${reader.username}`);
  expect(JSON.parse(await say(reader.href, 'executors', '--json'))).toMatchObject([{ id: 'e', verdict: 'alive' }]);
  expect(JSON.parse(await say(reader.href, 'status', '--json'))).toMatchObject({ executors: { alive: 1 } });
});

test('executors that have all stopped are not unknown', async () => {
  const { url, database } = await createFleetDatabase();
  expect(await say(url, 'executors')).toBe('no executors known');
  await refreshHeartbeats(database, [{ executorId: 'e', applicationName: 'e' }]);
  await database.query('UPDATE executor SET stopped_at = now()');
  expect(await say(url, 'executors')).toBe('no executors but 1 stopped: --all shows them');
  expect(await say(url, 'executors', '--all')).toMatch(/^e +stopped/m);
});
