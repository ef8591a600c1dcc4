import { expect, onTestFinished, test } from 'vitest';
import { createBlame } from '../../src/healing/blame.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { createFleetDatabase, silentLog } from '../support/database.ts';
import { createExecutor, openTestContext, sweepOnce } from '../support/executor.ts';
import { createScriptedUnits, FAILED } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';

const UNIT = 'a.service';
const PID = 4711;

interface ExecutorLife {
  unit: string | null;
  invocation: string | null;
  draining: boolean;
}

interface Crash {
  unit: string;
  invocation: string;
  result: string;
  count: number;
  attempts: { jobId: string }[];
}

async function setUp() {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const units = createScriptedUnits();
  units.set(UNIT, { invocationId: 'first' });
  const { jobs } = await openTestContext(url);
  const executor = await createExecutor(url, database, 'w');
  await database.query(`UPDATE executor SET host = 'here', pid = $1, witness_node = 'test'`, [PID]);
  /** As each life of the daemon makes it. */
  const open = (allowed = UNIT) => {
    const blame = createBlame({
      database,
      jobs,
      units: units.manager,
      journal: units.journal,
      clock: systemClock,
      log: silentLog,
      host: 'here',
      node: 'test',
      unitOf: () => UNIT,
      allows: ({ unit }) => unit === allowed,
      onCrash: () => undefined,
    });
    onTestFinished(() => void blame.stop());
    return blame;
  };
  return {
    url,
    database,
    units,
    executor,
    open,
    life: async () =>
      (await database.query<ExecutorLife>(`SELECT unit, unit_invocation AS invocation, draining FROM executor WHERE id = 'w'`))[0],
    crash: async () =>
      (await database.query<Crash>('SELECT unit, invocation, result, attempt_count AS count, attempts FROM unit_crash'))[0],
  };
}

test('a crash while no daemon looked is recorded by the next one: in which life of its unit the executor ran is known', async () => {
  const { units, open, crash } = await setUp();
  const first = open();
  await first.learn('w', PID);
  first.stop();
  units.set(UNIT, { ...FAILED, result: 'signal', exitCode: 'killed', exitStatus: 9 });
  await open().record('w');
  expect(await crash()).toMatchObject({ unit: UNIT, invocation: 'first', result: 'signal' });
});

test('a process that outlived the life of its unit stays one of that life, whoever looks later', async () => {
  const { units, open, life } = await setUp();
  await open().learn('w', PID);
  units.set(UNIT, { invocationId: 'second' });
  await open().learn('w', PID);
  expect(await life()).toMatchObject({ invocation: 'first' });
});

test.each([
  [UNIT, true],
  ['another.service', false],
])('whether its unit may be touched is noted by each life of the daemon: where %s may, %s', async (allowed, noted) => {
  const { database, open } = await setUp();
  await open(noted ? 'another.service' : UNIT).learn('w', PID);
  await open(allowed).learn('w', PID);
  expect(await database.query('SELECT unit, unit_allowed AS noted FROM executor')).toEqual([{ unit: UNIT, noted }]);
});

test('adopted while the bus is away: its unit is learned when it is back, and that it is being stopped', async () => {
  const { units, open, life } = await setUp();
  units.setBus(false);
  const blame = open();
  await blame.learn('w', PID);
  await blame.refresh();
  expect(await life()).toEqual({ unit: null, invocation: null, draining: false });
  units.set(UNIT, { activeState: 'deactivating', subState: 'stop-sigterm' });
  units.setBus(true);
  await waitFor('the unit to be learned', async () => (await life())?.draining === true);
  expect(await life()).toEqual({ unit: UNIT, invocation: 'first', draining: true });
});

test.each([
  ['begun', 'deactivating', true],
  ['ended', 'active', false],
])('a stop that has %s while the bus was away is noted', async (_, activeState, draining) => {
  const { units, open, life } = await setUp();
  const blame = open();
  if (!draining) units.set(UNIT, { activeState: 'deactivating' });
  await blame.learn('w', PID);
  units.setBus(false);
  units.set(UNIT, { activeState });
  units.setBus(true);
  await waitFor('it to be noted', async () => (await life())?.draining === draining);
});

test.each(['still waiting', 'given back'])('of a crash with more attempts than are kept all are counted: %s', async (when) => {
  const { url, units, executor, open, crash } = await setUp();
  await executor.boss.insert(
    'work',
    Array.from({ length: 150 }, () => ({})),
  );
  const fetched = await executor.fetch('work', 150);
  expect(fetched).toHaveLength(150);
  const blame = open();
  await blame.learn('w', PID);
  await executor.die();
  if (when === 'given back') expect((await sweepOnce(url)).recovered).toHaveLength(150);
  units.set(UNIT, FAILED);
  await blame.record('w');
  const recorded = await crash();
  expect(recorded).toMatchObject({ count: 150 });
  expect(recorded?.attempts.map(({ jobId }) => jobId)).toEqual(
    fetched
      .map(({ id }) => id)
      .sort()
      .slice(0, 100),
  );
});
