import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { listIncidents } from '../../src/incidents/listing.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { projectExhaustedSteps, reconcileWorkflows } from '../../src/workflows/reconcile.ts';
import { onReplay, REPLAY_EVENT, type ReplayedEvent, stepMoved, trackStep } from '../../src/workflows/tracking.ts';
import { completeAttempt } from '../support/complete.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { openTestContext } from '../support/executor.ts';
import { twoSweepsPass } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';

const ENGINE = fileURLToPath(new URL('../support/engine-main.ts', import.meta.url));
const NO_SCOPE = { stack: null, env: null };
const QUICK = { RECLAIMD_REPLAY_AFTER: '0s', RECLAIMD_RECONCILE_INTERVAL: '500ms' };

function startEngine(options: { url: string; killAt?: string; begin?: string }): Promise<void> {
  const child = spawn(process.execPath, [ENGINE, JSON.stringify(options)], { stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = new Promise<void>((done) => child.once('exit', () => done()));
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  return exited;
}

async function createSteps(env: Record<string, string> = QUICK) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'step' }, { name: 'heard' }] });
  const { boss, database, url } = fleet;
  const context = await openTestContext(url, env);
  const reconcile = (scope = NO_SCOPE as { stack: string | null; env: string | null }, options = {}) =>
    reconcileWorkflows(context.reconcileDependencies(), scope, options);

  /** A step whose job has come to this end without its engine hearing of it. */
  async function missed(
    instanceId: string,
    end: 'completed' | 'failed' | 'cancelled' | 'created' = 'completed',
    where = {},
  ): Promise<string> {
    const jobId = (await boss.send('step', {}, { retryLimit: 0 })) ?? '';
    await trackStep(database, { instanceId, step: 'one', queue: 'step', jobId, workflow: 'w', ...where });
    if (end === 'cancelled') await boss.cancel('step', jobId);
    if (end === 'completed' || end === 'failed') {
      const [job] = await boss.fetch('step', { includeMetadata: true });
      if (job?.id !== jobId) throw new Error('another job was fetched');
      if (end === 'completed') await completeAttempt(boss, 'step', job);
      else await boss.fail('step', jobId);
    }
    return jobId;
  }
  const pass = (seconds: number) =>
    database.query(
      `UPDATE workflow_step SET next_replay_at = next_replay_at - make_interval(secs => $1), missing_since = missing_since - make_interval(secs => $1)`,
      [seconds],
    );
  return { ...fleet, context, reconcile, missed, pass };
}

test.each(['after the start', 'in the job', 'before the event', 'inside the event', 'after the event'])(
  'an engine killed %s gets through, and takes each event once',
  async (killAt) => {
    const { url, database } = await createFleetDatabase({ queues: [{ name: 'step' }] });
    await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
    await database.query('CREATE TABLE public.effect (instance text, step text)');
    await startTestDaemon(url, QUICK);
    await startEngine({ url, begin: 'sale-1', killAt });
    void startEngine({ url });
    await waitFor(
      'the workflow to complete',
      async () => (await database.query(`SELECT FROM workflow_instance WHERE state = 'completed'`)).length === 1,
      60_000,
    );
    const effects = await database.query<{ step: string }>('SELECT step FROM public.effect ORDER BY step');
    expect(effects.map(({ step }) => step)).toEqual(['order', 'pay', 'ship']);
  },
  90_000,
);

test.each(['completed', 'failed', 'cancelled'] as const)('a step whose job %s is told of it, by NOTIFY and by publish', async (end) => {
  const { boss, database, reconcile, missed } = await createSteps();
  await boss.subscribe(REPLAY_EVENT, 'heard');
  const events: ReplayedEvent[] = [];
  const listener = onReplay(database, (event) => events.push(event));
  onTestFinished(() => listener.stop());
  await waitFor(
    'the listener',
    async () => (await database.query(`SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN%replay%'`)).length > 0,
  );
  const jobId = await missed('i1', end);
  expect(await reconcile(NO_SCOPE, { dryRun: true })).toMatchObject({ replayed: 1 });
  expect(await reconcile()).toMatchObject({ replayed: 1, skipped: 0, unpublished: 0 });
  const event = { instanceId: 'i1', workflow: 'w', step: 'one', queue: 'step', jobId, outcome: end, replay: 1 };
  await waitFor('the event', () => events.length > 0);
  expect(events).toEqual([event]);
  expect((await boss.fetch('heard'))?.[0]?.data).toEqual(event);
  expect(await boss.fetch('heard')).toEqual([]);
  expect(await stepMoved(database, { instanceId: 'i1', step: 'one' })).toBe(true);
  expect(await stepMoved(database, { instanceId: 'i1', step: 'one' })).toBe(false);
  expect(await reconcile()).toMatchObject({ replayed: 0, skipped: 0 });
});

test('a subscriber that refuses does not keep the event from the listeners', async () => {
  const { boss, database, reconcile, missed } = await createSteps();
  await boss.subscribe(REPLAY_EVENT, 'heard');
  await database.query(`ALTER TABLE job ADD CONSTRAINT none CHECK (name <> 'heard')`);
  await missed('i1');
  expect(await reconcile()).toMatchObject({ replayed: 1, unpublished: 1 });
  expect(await database.query('SELECT replays FROM workflow_step')).toEqual([{ replays: 1 }]);
});

test('what still runs, has no job, or belongs to an instance that ended, is left alone', async () => {
  const { database, reconcile, missed } = await createSteps();
  await missed('over');
  await database.query(`SELECT instance_moved('over', 'cancelled')`);
  await missed('runs', 'created');
  await trackStep(database, { instanceId: 'thinks', step: 'one' });
  expect(await reconcile()).toMatchObject({ replayed: 0, skipped: 2 });
});

test('a job that is gone, or of an unknown queue, is lost after a grace, and not before', async () => {
  const { boss, database, reconcile, missed, pass } = await createSteps();
  await boss.deleteJob('step', await missed('gone', 'created'));
  await trackStep(database, { instanceId: 'unknown', step: 'one', queue: 'nowhere', jobId: randomUUID() });
  expect(await reconcile()).toMatchObject({ replayed: 0, skipped: 2 });
  await pass(50);
  expect(await reconcile()).toMatchObject({ replayed: 0, skipped: 2 });
  await pass(20);
  const { events } = await reconcile();
  expect(events.map(({ instanceId, outcome }) => [instanceId, outcome])).toEqual([
    ['gone', 'lost'],
    ['unknown', 'lost'],
  ]);
});

test('with growing pauses, up to the limit, then an incident until the engine moves on', async () => {
  const { database, reconcile, missed, pass } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_AFTER: '10s', RECLAIMD_REPLAY_MAX: '3' });
  const jobId = await missed('i1');
  expect((await reconcile()).replayed).toBe(0);
  await database.query(`UPDATE job SET completed_on = now() - interval '1 hour' WHERE id = $1`, [jobId]);
  for (const pause of [10, 20, 40]) {
    expect((await reconcile()).replayed).toBe(1);
    await pass(pause - 5);
    expect((await reconcile()).replayed).toBe(0);
    await pass(5);
  }
  expect((await reconcile()).replayed).toBe(0);
  await projectExhaustedSteps(database, 'test');
  const stuck = async () => (await listIncidents(database, { class: 'workflow_stuck' })).incidents;
  expect(await stuck()).toMatchObject([{ fingerprint: 'workflow_stuck:step:i1/one' }]);
  await stepMoved(database, { instanceId: 'i1', step: 'one' });
  await projectExhaustedSteps(database, 'test');
  expect(await stuck()).toEqual([]);
  // The same step with a new job begins afresh.
  await missed('i1');
  await database.query(`UPDATE job SET completed_on = now() - interval '1 hour'`);
  expect((await reconcile()).events).toMatchObject([{ replay: 1 }]);
});

test("steps of another env, or of another's stack, are not touched", async () => {
  const { reconcile, missed } = await createSteps();
  await missed('a', 'completed', { env: 'staging' });
  await missed('b', 'completed', { env: 'production', stack: 'shop' });
  await missed('c', 'completed', { env: 'production' });
  expect((await reconcile()).replayed + (await reconcile()).skipped).toBe(0);
  const { events } = await reconcile({ env: 'production', stack: 'billing' });
  expect(events.map(({ instanceId }) => instanceId)).toEqual(['c']);
  expect((await reconcile({ env: 'production', stack: 'shop' })).events.map(({ instanceId }) => instanceId)).toEqual(['b']);
});

test('thousands of steps in pages, and ten at once tell each event once', async () => {
  const { database, reconcile } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_AFTER: '10m' });
  await database.query(
    `WITH made AS (INSERT INTO job (name, state, completed_on) SELECT 'step', 'completed', now() - interval '1 hour' FROM generate_series(1, 1200)
       RETURNING id)
     SELECT track_step('i-' || id, 'one', 'step', id) FROM made`,
  );
  const reports = await Promise.all(Array.from({ length: 10 }, () => reconcile()));
  expect(reports.reduce((sum, { replayed }) => sum + replayed, 0)).toBe(1_200);
  expect(await database.query('SELECT FROM workflow_step WHERE replays <> 1')).toEqual([]);
});

test('five daemons: one replay a turn, after the first sweep; the dry run tells nobody', async () => {
  const { url, database, missed } = await createSteps();
  await missed('i1');
  const env = { RECLAIMD_REPLAY_AFTER: '1m', RECLAIMD_RECONCILE_INTERVAL: '500ms' };
  await database.query(`UPDATE job SET completed_on = now() - interval '1 hour'`);
  await startTestDaemon(url, { ...env, RECLAIMD_NODE: 'dry', RECLAIMD_DRY_RUN: 'true' });
  await twoSweepsPass(database);
  expect(await database.query('SELECT replays FROM workflow_step')).toEqual([{ replays: 0 }]);
  for (let node = 0; node < 5; node++) await startTestDaemon(url, { ...env, RECLAIMD_NODE: `node-${node}` });
  await waitFor('the replay', async () => (await database.query('SELECT FROM workflow_step WHERE replays > 0')).length === 1);
  await twoSweepsPass(database);
  expect(await database.query('SELECT replays FROM workflow_step')).toEqual([{ replays: 1 }]);
});

test('the command reconciles: dry, then for real', async () => {
  const { url, database, missed } = await createSteps();
  await missed('i1');
  const run = async (...args: string[]) => {
    const printed: string[] = [];
    let code = -1;
    const env = { DATABASE_URL: url, RECLAIMD_REPLAY_AFTER: '0s' };
    const surroundings = { env, out: (text: string) => printed.push(text), signal: new AbortController().signal };
    await createProgram(surroundings, '0', (given) => {
      code = given;
    }).parseAsync(['reconcile', '--json', '--actor', 'ann@desk', ...args], { from: 'user' });
    return { code, said: JSON.parse(printed[0] ?? 'null') as unknown };
  };
  expect(await run('--dry-run')).toMatchObject({ code: 0, said: { dryRun: true, replayed: 1 } });
  expect(await database.query('SELECT replays FROM workflow_step')).toEqual([{ replays: 0 }]);
  expect(await run()).toMatchObject({ code: 0, said: { replayed: 1, skipped: 0, events: [{ instanceId: 'i1', outcome: 'completed' }] } });
  expect(await database.query('SELECT replays FROM workflow_step')).toEqual([{ replays: 1 }]);
});
