import { expect, test } from 'vitest';
import { migrate } from '../../src/postgres/migrate.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { installPgBoss, openDatabase } from '../support/database.ts';
import { createPrivatePostgres } from '../support/private-postgres.ts';
import { createScriptedUnits } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const AN_HOUR_PASSES = [
  `UPDATE reclaimd.executor SET beat_at = beat_at - interval '1 hour', session_at = session_at - interval '1 hour', started_at = started_at - interval '1 hour'`,
  `UPDATE pgboss.instance SET heartbeat_on = heartbeat_on - interval '1 hour', started_on = started_on - interval '1 hour'`,
  `UPDATE reclaimd.node SET beat_at = beat_at - interval '1 hour', started_at = started_at - interval '1 hour'`,
  `UPDATE reclaimd.daemon SET beat_at = beat_at - interval '1 hour'`,
  `UPDATE reclaimd.turn SET due_at = due_at - interval '1 hour', lease_until = lease_until - interval '1 hour'`,
];

test('Postgres away for longer than RECLAIMD_HUNG_AFTER: no unit of a living worker is restarted, that of one that hangs is', async () => {
  const postgres = await createPrivatePostgres();
  const { url } = postgres;
  await installPgBoss(url, { queues: [{ name: 'work' }] });
  const database = openDatabase(url);
  await migrate(database, 'reclaimd');
  // It polls so seldom that its beats alone, every five seconds, say that it lives.
  const worker = await spawnWorker({ url, queues: ['work'], pollingIntervalSeconds: 60 });
  const units = createScriptedUnits();
  units.set('a.service', { invocationId: 'first' });
  const env = { RECLAIMD_UNITS: 'a b', RECLAIMD_HUNG_AFTER: '10s', RECLAIMD_OUTAGE_GRACE: '1s', RECLAIMD_HEAL_SETTLE: '100ms' };
  await startTestDaemon(url, env, { units: { manager: units.manager, journal: units.journal } });
  const verdict = async () => {
    // Whatever happens to any unit brings the next pass.
    units.set('b.service', { activeState: 'inactive', subState: 'dead', unitFileState: 'static' });
    return (await database.query<{ verdict: string }>('SELECT verdict FROM executor'))[0]?.verdict;
  };
  await waitFor('the worker to be adopted', async () => {
    const rows = await database.query(
      `UPDATE executor SET unit = 'a.service', unit_invocation = 'first' WHERE witness_node IS NOT NULL RETURNING id`,
    );
    return rows.length === 1;
  });

  // Not a word of its own before the daemon has looked at it again.
  worker.kill('SIGSTOP');
  await postgres.stop();
  await postgres.inTheDark(...AN_HOUR_PASSES);
  await postgres.start();
  await waitFor('our connection to be back', () => database.query('SELECT 1').then(Boolean, () => false));
  await waitFor('it to be looked upon as hung', async () => (await verdict()) === 'hung');
  worker.kill('SIGCONT');
  await waitFor('it to be alive again', async () => (await verdict()) === 'alive');
  expect(units.calls).toEqual([]);

  worker.kill('SIGSTOP');
  await waitFor('the restart', async () => (await verdict()) !== undefined && units.calls.includes('restart a.service'));
});
