import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import { refreshHeartbeats } from '../../src/executors/health.ts';
import type { Database } from '../../src/postgres/database.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createScriptedUnits, FAILED, type ScriptedUnits } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';

const ENV = { RECLAIMD_UNITS: 'a b', RECLAIMD_HUNG_AFTER: '30s', RECLAIMD_HEAL_SETTLE: '100ms', RECLAIMD_HEAL_BACKOFF: '0s' };
const UNIT = 'a.service';

const actions = (database: Database) =>
  database.query<{ action: string; actor: string; automatic: boolean; outcome: string | null; error: string | null }>(
    'SELECT action, actor, automatic, outcome, error FROM unit_action ORDER BY id',
  );
const restarts = (units: ScriptedUnits) => units.calls.filter((call) => call.startsWith('restart'));
const nodeBeat = async (database: Database) => (await database.query<{ at: string }>('SELECT beat_at::text AS at FROM node'))[0]?.at;

async function setUp() {
  const { url, database } = await createFleetDatabase();
  const units = createScriptedUnits();
  units.set(UNIT, {});
  units.processes.set(UNIT, [4711]);
  const beat = () =>
    refreshHeartbeats(database, [{ executorId: 'w', applicationName: 'w', beatSeconds: 0.1, host: 'elsewhere', pid: 4711 }]);
  return {
    url,
    database,
    units,
    beat,
    run: (env: Record<string, string> = {}, manager = units.manager) =>
      startTestDaemon(url, { ...ENV, ...env }, { units: { manager, journal: units.journal } }),
    /** A process that this node holds in sight, in that life of the unit, and silent for a minute. */
    hang: async () => {
      await beat();
      await database.query(
        `UPDATE executor SET beat_at = now() - interval '1 minute', started_at = now() - interval '1 hour', unit = $1, unit_invocation = $2,
           witness_node = node, witness_daemon_id = daemon_id, witness_boot_id = boot_id FROM node WHERE id = 'w' AND node = 'test'`,
        [UNIT, (await units.manager.read(UNIT))?.invocationId],
      );
    },
    judgedHung: () =>
      waitFor('it to be hung', async () => (await database.query(`SELECT FROM executor WHERE verdict = 'hung'`)).length === 1),
    /** Until the daemon has looked at the units twice more. */
    twoPasses: async () => {
      const before = units.looks();
      await waitFor('two passes', () => {
        units.set('b.service', { activeState: 'inactive', subState: 'dead', unitFileState: 'static' });
        return units.looks() >= before + 2;
      });
    },
  };
}

test('the unit of a worker that hangs is restarted once, under its budget, and no process of that life is left', async () => {
  const { database, units, run, hang } = await setUp();
  await run();
  await waitFor('the node', () => nodeBeat(database));
  await hang();
  await waitFor('its end', async () => (await actions(database))[0]?.outcome === 'done');
  expect(await actions(database)).toEqual([
    { action: 'unit_restart', actor: 'reclaimd@test', automatic: true, outcome: 'done', error: null },
  ]);
  expect(restarts(units)).toEqual([`restart ${UNIT}`]);
});

test('after an outage a worker that looks hung keeps its unit until the grace is over', async () => {
  const { database, units, run, hang, judgedHung, twoPasses } = await setUp();
  const first = await run({ RECLAIMD_OUTAGE_GRACE: '1h' });
  await waitFor('the node', () => nodeBeat(database));
  await hang();
  await judgedHung();
  await twoPasses();
  await first.stop();
  expect(units.calls).toEqual([]);
  expect(await actions(database)).toEqual([]);
  await run();
  await waitFor('the next life', async () => (await database.query('SELECT FROM node WHERE stopped_at IS NULL')).length === 1);
  await hang();
  await waitFor('the restart', () => restarts(units).length === 1);
});

test('a worker that gives a sign just before its unit would be restarted keeps it', async () => {
  const { database, units, beat, run, hang, twoPasses } = await setUp();
  const manager = {
    ...units.manager,
    read: async (unit: string) => {
      if (unit === UNIT) await beat();
      return units.manager.read(unit);
    },
  };
  await run({}, manager);
  await waitFor('the node', () => nodeBeat(database));
  await hang();
  await waitFor('the second look', async () => (await actions(database))[0]?.outcome === 'not_needed');
  await twoPasses();
  expect(units.calls).toEqual([]);
});

test('a unit with a stop that waits for others keeps its worker that hangs: it is on its way down', async () => {
  const { database, units, run, hang, twoPasses } = await setUp();
  await run();
  await waitFor('the node', () => nodeBeat(database));
  units.set(UNIT, { job: 'stop' });
  await hang();
  await waitFor('the second look', async () => (await actions(database))[0]?.outcome === 'not_needed');
  await twoPasses();
  expect(units.calls).toEqual([]);
});

test('a process that outlives the restart of its unit is told, and its unit is not restarted again for it', async () => {
  const { database, units, run, hang, judgedHung, twoPasses } = await setUp();
  units.survivors.set(UNIT, [4711]);
  await run();
  await waitFor('the node', () => nodeBeat(database));
  await hang();
  await waitFor('its end', async () => (await actions(database))[0]?.outcome === 'failed');
  expect((await actions(database))[0]?.error).toMatch(/the processes 4711 are left/);
  await judgedHung();
  await twoPasses();
  expect(await actions(database)).toHaveLength(1);
});

test.each([
  ['RECLAIMD_HEAL=off', { RECLAIMD_HEAL: 'off' }],
  ['a dry run', { RECLAIMD_DRY_RUN: 'true' }],
  ['its unit declared to be stopped', { RECLAIMD_UNITS_STOPPED: 'a' }],
])('with %s no unit is restarted for a worker that hangs', async (_, env) => {
  const { database, units, run, hang, judgedHung, twoPasses } = await setUp();
  await run(env);
  await waitFor('the node', () => nodeBeat(database));
  await hang();
  await judgedHung();
  await twoPasses();
  expect(units.calls).toEqual([]);
});

/** Two beats of the daemon are six seconds: two looks by themselves, and one for each time that something was to be done at once. */
async function looksInTwoBeats(database: Database, units: ScriptedUnits): Promise<number> {
  const before = units.looks();
  for (let beat = 0; beat < 2; beat++) {
    const last = await nodeBeat(database);
    await waitFor('a beat', async () => (await nodeBeat(database)) !== last);
  }
  return units.looks() - before;
}

test('what may not be done now is not tried again and again: an open breaker, and a healer that died', async () => {
  const { database, units, run, hang, judgedHung } = await setUp();
  await run({ RECLAIMD_HEAL_MAX: '1' });
  await waitFor('the node', () => nodeBeat(database));
  await hang();
  await waitFor('the restart', async () => (await actions(database))[0]?.outcome === 'done');
  await hang();
  await judgedHung();
  await database.query(
    `INSERT INTO unit_action (host, node, unit, action, actor, automatic, lease_until)
     VALUES ($1, 'dead', 'b.service', 'unit_heal', 'ann@desk', false, now() + interval '1 hour')`,
    [hostname()],
  );
  units.set('b.service', FAILED);
  expect(await looksInTwoBeats(database, units)).toBeLessThan(8);
  expect(restarts(units)).toHaveLength(1);
  expect(units.calls.filter((call) => call.includes('b.service'))).toEqual([]);
});
