import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import { status } from '../../src/cli/status.ts';
import { runSweep } from '../../src/cli/sweep.ts';
import { refreshExecutors } from '../../src/executors/health.ts';
import { CUT_OFF_AFTER_SECONDS } from '../../src/fleet/beat.ts';
import { saveBeat } from '../../src/fleet/queries.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { registry } from '../../src/pgboss/job-store.ts';
import type { Database } from '../../src/postgres/database.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { openTestContext, sweepOnce } from '../support/executor.ts';
import { fallSilent } from '../support/silence.ts';
import { twoSweepsPass } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

/** These workers beat every 5 s: late after 10 s, missing after 15 s, and silence counts for nothing for 10 s after a comeback. */
const LATE = 11;
const MISSING = 20;
const TOO_FRESH_A_SERVER = 11;

const comeBack = (database: Database) => database.query(`UPDATE fleet SET comeback_at = now(), comeback_reason = 'a test'`);

/** Busy workers of a host without a daemon: only their beats speak for them. */
async function createFleet(workers: number, env: Record<string, string> = {}) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
  const { url, boss, database } = fleet;
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await boss.insert(
    'work',
    Array.from({ length: workers }, () => ({})),
  );
  const spawned = await Promise.all(
    Array.from({ length: workers }, () => spawnWorker({ url, queues: ['work'], mode: 'forever', hostname: 'elsewhere' })),
  );
  await Promise.all(spawned.map((worker) => worker.started(1)));
  await refreshExecutors(database, registry);
  await waitFor('the grace after the start of the server to be over', async () => {
    const old = `SELECT WHERE now() - pg_postmaster_start_time() > make_interval(secs => $1)`;
    return (await database.query(old, [TOO_FRESH_A_SERVER])).length > 0;
  });
  const daemonId = randomUUID();
  const context = await openTestContext(url, { RECLAIMD_NODE: 'here', ...env });
  const beat = () =>
    saveBeat(
      database,
      { node: 'here', daemonId, host: 'here', pid: 1, bootId: null, version: 'test', stack: null, env: null },
      CUT_OFF_AFTER_SECONDS,
    );
  await beat();
  const dependencies = context.sweepDependencies(daemonId, false);
  return { ...fleet, workers: spawned, dependencies, beat, sweep: () => sweep(dependencies) };
}

/** Stopped, or dead: nobody on its host can tell which. */
async function createSilent(env: Record<string, string> = {}) {
  const fleet = await createFleet(1, env);
  const [worker] = fleet.workers;
  if (!worker) throw new Error('no worker');
  worker.kill('SIGSTOP');
  return { ...fleet, worker, silent: (seconds: number) => fallSilent(fleet.database, seconds, [worker]) };
}

const countRecoveries = async (database: Database) => (await database.query('SELECT FROM recovery')).length;

test('the job of a worker killed on a host without a daemon comes back after missing-after, and not before', async () => {
  const { worker, silent, sweep, database } = await createSilent();
  worker.kill('SIGKILL');
  await worker.exited;
  await silent(LATE);
  expect(await sweep()).toMatchObject({ failed: 0, executors: [{ verdict: 'late' }] });
  await silent(MISSING);
  expect(await sweep()).toMatchObject({ failed: 1, executors: [{ verdict: 'missing' }] });
  expect(await database.query('SELECT executor_id, proof, verdict FROM recovery')).toEqual([
    { executor_id: worker.instance, proof: null, verdict: 'missing' },
  ]);
  expect(await database.query('SELECT state::text FROM job')).toEqual([{ state: 'retry' }]);
});

test('a daemon that has only just begun takes nobody by silence', async () => {
  const { silent, sweep, database } = await createSilent({ RECLAIMD_STARTUP_DELAY: '2m' });
  await silent(MISSING);
  expect(await sweep()).toMatchObject({ failed: 0, restraints: [{ reason: 'startup_delay' }] });
  await database.query(`UPDATE node SET started_at = started_at - interval '110 seconds'`);
  expect(await sweep()).toMatchObject({ failed: 0, restraints: [{ reason: 'startup_delay' }] });
  await database.query(`UPDATE node SET started_at = started_at - interval '11 seconds'`);
  expect(await sweep()).toMatchObject({ failed: 1, restraints: [] });
});

test('nobody is taken by silence during the grace after a comeback of anybody', async () => {
  const { silent, sweep, database } = await createSilent({ RECLAIMD_OUTAGE_GRACE: '2m' });
  await database.query(`UPDATE fleet SET comeback_at = now() - interval '110 seconds'`);
  await silent(3600);
  expect(await sweep()).toMatchObject({ failed: 0, restraints: [{ reason: 'outage_grace' }] });
  expect(await countRecoveries(database)).toBe(0);
});

test('however short the configured grace, an executor has the time of two beats', async () => {
  const { silent, sweep, database } = await createSilent({ RECLAIMD_OUTAGE_GRACE: '0s' });
  await silent(3600);
  await comeBack(database);
  expect(await sweep()).toMatchObject({ failed: 0, restraints: [{ reason: 'outage_grace' }] });
  await database.query(`UPDATE fleet SET comeback_at = comeback_at - interval '11 seconds'`);
  expect(await sweep()).toMatchObject({ failed: 1, restraints: [] });
});

test('a daemon whose own beat is stale, or is not there, judges nobody by silence', async () => {
  const { silent, sweep, beat, database } = await createSilent();
  await silent(MISSING);
  await database.query(`UPDATE node SET beat_at = beat_at - interval '8 seconds'`);
  expect(await sweep()).toMatchObject({ failed: 0, restraints: [{ reason: 'cut_off' }] });
  await database.query('UPDATE node SET daemon_id = $1, beat_at = now()', [randomUUID()]);
  expect(await sweep()).toMatchObject({ failed: 0, restraints: [{ reason: 'cut_off' }] });
  await beat();
  expect(await sweep()).toMatchObject({ failed: 1, restraints: [] });
});

test('a command goes by the beats of the fleet: while no daemon has any, or none has had them for long, it takes nobody by silence', async () => {
  const env = { RECLAIMD_STARTUP_DELAY: '2m' };
  const { url, silent, database } = await createSilent(env);
  await silent(3600);
  const held = { failed: 0, restraints: [{ reason: 'cut_off' }] };
  const [node] = await database.query('DELETE FROM node RETURNING *');
  expect(await sweepOnce(url, env), 'there never was one').toMatchObject(held);
  await database.query('INSERT INTO node SELECT * FROM jsonb_populate_record(NULL::node, $1::jsonb)', [JSON.stringify(node)]);
  await database.query(`UPDATE node SET beat_at = now() - interval '1 hour', started_at = now() - interval '2 hours'`);
  expect(await sweepOnce(url, env)).toMatchObject(held);
  await database.query('UPDATE node SET beat_at = now(), started_at = now()');
  expect(await sweepOnce(url, env)).toMatchObject({ failed: 0, restraints: [{ reason: 'startup_delay' }] });
  await database.query(`UPDATE node SET started_at = now() - interval '3 minutes'`);
  expect(await sweepOnce(url, env)).toMatchObject({ failed: 1, restraints: [] });
});

test('what a command says of it names what to do', async () => {
  const { url, silent, database } = await createSilent();
  await silent(3600);
  await database.query(`UPDATE node SET beat_at = now() - interval '1 hour'`);
  const said: string[] = [];
  const surroundings = {
    env: { DATABASE_URL: url, RECLAIMD_STARTUP_DELAY: '0s', RECLAIMD_OUTAGE_GRACE: '0s' },
    out: (text: string) => said.push(text),
    signal: new AbortController().signal,
  };
  expect(await runSweep(surroundings, { actor: 'ann@desk' })).toBe(0);
  expect(said.join('\n')).toMatch(/held back \(cut off\).*\n.*no daemon of the fleet beats.*executor_rescue/);
  said.length = 0;
  await status(surroundings, { json: true });
  const { fleet } = JSON.parse(said.join('')) as { fleet: { lastBeatSeconds: number } };
  expect(Object.keys(fleet).sort()).toEqual(['braked', 'comebackReason', 'comebackSeconds', 'lastBeatSeconds']);
  expect(fleet.lastBeatSeconds).toBeGreaterThan(3599);
});

type Silent = Awaited<ReturnType<typeof createSilent>>;

test.each<[string, (silent: Silent) => Promise<unknown>]>([
  ['it beats again', ({ database }) => database.query('UPDATE instance SET heartbeat_on = clock_timestamp()')],
  ['one of its sessions does something', ({ url, database }) => openSessionOfTheWorker(url, database)],
  ['a daemon finds its process', ({ database }) => witness(database)],
  ['the fleet comes back from an outage', ({ database }) => comeBack(database)],
  ['the mass-failure brake is let go', ({ database }) => database.query('UPDATE fleet SET brake_released_at = now()')],
  ['the judge itself is cut off', ({ database }) => database.query(`UPDATE node SET beat_at = beat_at - interval '8 seconds'`)],
])('a silent executor is let go when, between the judging and the taking, %s', async (_, meanwhile) => {
  const fleet = await createSilent();
  const { database, dependencies } = fleet;
  await fleet.silent(MISSING);
  const interrupted: typeof dependencies.database = {
    ...dependencies.database,
    transaction: async (work) => {
      await meanwhile(fleet);
      return dependencies.database.transaction(work);
    },
  };
  expect(await sweep({ ...dependencies, database: interrupted })).toMatchObject({
    failed: 0,
    skipped: 1,
    executors: [{ verdict: 'missing' }],
  });
  expect(await countRecoveries(database)).toBe(0);
  expect(await database.query('SELECT state::text FROM job')).toEqual([{ state: 'active' }]);
});

test('without any of that, it is taken', async () => {
  const { silent, sweep } = await createSilent();
  await silent(MISSING);
  expect(await sweep()).toMatchObject({ failed: 1, skipped: 0 });
});

/** As the daemon of its host does it, once it has begun. */
async function witness(database: Database): Promise<void> {
  const daemonId = randomUUID();
  await database.query('INSERT INTO daemon (id) VALUES ($1)', [daemonId]);
  await database.query(`UPDATE executor SET witness_node = 'elsewhere', witness_daemon_id = $1`, [daemonId]);
}

async function openSessionOfTheWorker(url: string, database: Database): Promise<void> {
  const [row] = await database.query<{ name: string }>('SELECT application_name AS name FROM instance');
  const session = new pg.Client({ connectionString: url, application_name: row?.name ?? '' });
  session.on('error', () => undefined);
  await session.connect();
  onTestFinished(() => session.end());
  await session.query('SELECT 1');
}

test('one that is silent still when the mass-failure brake is let go gets the time for two beats from then', async () => {
  const { silent, sweep, database } = await createSilent();
  await silent(3600);
  const held = { failed: 0, restraints: [{ reason: 'mass_failure' }] };
  await database.query('UPDATE fleet SET braked_since = now()');
  expect(await sweep(), 'it held at the last look').toMatchObject(held);
  await database.query('UPDATE fleet SET braked_since = NULL, brake_released_at = now()');
  expect(await sweep()).toMatchObject(held);
  await database.query(`UPDATE fleet SET brake_released_at = now() - interval '1 minute'`);
  expect(await sweep()).toMatchObject({ failed: 1, restraints: [] });
});

test('more than half of a fleet silent together, without proof: nobody is taken, and one incident says so', async () => {
  const { url, database, workers } = await createFleet(4);
  await startTestDaemon(url);
  const [survivor, ...silent] = workers;
  for (const worker of silent) worker.kill('SIGSTOP');
  await fallSilent(database, 3600, workers);
  await database.query(`UPDATE instance SET heartbeat_on = now() WHERE id::text = $1`, [survivor?.instance]);
  const incidents = () => database.query<{ class: string; open: boolean }>('SELECT class, resolved_at IS NULL AS open FROM incident');
  await waitFor('the incident', async () => (await incidents()).length > 0);
  await twoSweepsPass(database);
  expect(await incidents()).toEqual([{ class: 'mass_staleness', open: true }]);
  expect(await database.query('SELECT FROM fleet WHERE braked_since IS NOT NULL')).toHaveLength(1);
  expect(await countRecoveries(database)).toBe(0);

  for (const worker of silent) worker.kill('SIGCONT');
  await waitFor('the incident to end', async () => (await incidents()).every(({ open }) => !open));
  expect(await incidents()).toEqual([{ class: 'mass_staleness', open: false }]);
  expect(await database.query('SELECT FROM fleet WHERE braked_since IS NOT NULL')).toHaveLength(0);
  expect(await countRecoveries(database)).toBe(0);
  expect(await database.query(`SELECT FROM job WHERE state = 'active' AND retry_count = 0`)).toHaveLength(4);
});
