import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { listIncidents } from '../../src/incidents/listing.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Database, Sql } from '../../src/postgres/database.ts';
import { readRunningSteps } from '../../src/workflows/queries.ts';
import { projectExhaustedSteps, reconcileWorkflows } from '../../src/workflows/reconcile.ts';
import { onReplay, REPLAY_EVENT, type ReplayedEvent, stepMoved, trackStep } from '../../src/workflows/tracking.ts';
import { completeAttempt } from '../support/complete.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createSteps, QUICK } from '../support/steps.ts';
import { holdTurn, passesOf, releaseTurn, twoSweepsPass } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';

const ENGINE = fileURLToPath(new URL('../support/engine-main.ts', import.meta.url));

function startEngine(options: { url: string; killAt?: string; begin?: string }): Promise<void> {
  const child = spawn(process.execPath, [ENGINE, JSON.stringify(options)], { stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = new Promise<void>((done) => child.once('exit', () => done()));
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  return exited;
}

const listening = (database: Database) =>
  waitFor(
    'the listener',
    async () =>
      (await database.query(`SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN%replay%' AND datname = current_database()`)).length > 0,
  );

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
    );
    const effects = await database.query<{ step: string }>('SELECT step FROM public.effect ORDER BY step');
    expect(effects.map(({ step }) => step)).toEqual(['order', 'pay', 'ship']);
  },
  90_000,
);

test('an engine that cannot take an event lives on, has done nothing of it, and takes it when it is told again', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'step' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await database.query(
    `CREATE TABLE public.effect (instance text, step text); CREATE TABLE public.trouble AS SELECT true AS there;
     CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
       IF EXISTS (SELECT FROM public.trouble) THEN RAISE 'not now'; END IF; RETURN new; END $$;
     CREATE TRIGGER refuse BEFORE INSERT ON public.effect FOR EACH ROW EXECUTE FUNCTION public.refuse()`,
  );
  await startTestDaemon(url, QUICK);
  void startEngine({ url, begin: 'sale-1' });
  await waitFor('three replays', async () => (await replays(database)) >= 3);
  await database.query('DELETE FROM public.trouble');
  await waitFor(
    'the workflow to complete',
    async () => (await database.query(`SELECT FROM workflow_instance WHERE state = 'completed'`)).length === 1,
  );
  expect(await database.query('SELECT FROM public.effect')).toHaveLength(3);
}, 150_000);

test.each(['completed', 'failed', 'cancelled'] as const)('a step whose job %s is told of it, by NOTIFY and by publish', async (end) => {
  const { boss, database, reconcile, missed } = await createSteps();
  await boss.subscribe(REPLAY_EVENT, 'heard');
  const events: ReplayedEvent[] = [];
  const listener = onReplay(database, (event) => events.push(event));
  onTestFinished(() => listener.stop());
  await listening(database);
  const jobId = await missed('i1', end);
  expect(await reconcile(undefined, { dryRun: true })).toMatchObject({ replayed: 1 });
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

test('a subscriber that refuses, or whose policy takes one of three, does not keep events from the listeners, and is counted', async () => {
  const queues = [{ name: 'step' }, { name: 'heard' }, { name: 'single', policy: 'short' as const }];
  const { boss, database, reconcile, missed } = await createSteps(QUICK, { queues });
  await boss.subscribe(REPLAY_EVENT, 'heard');
  await boss.subscribe(REPLAY_EVENT, 'single');
  await database.query(`ALTER TABLE job ADD CONSTRAINT none CHECK (name <> 'heard')`);
  for (const instance of ['i1', 'i2', 'i3']) await missed(instance);
  expect(await reconcile()).toMatchObject({ replayed: 3, unpublished: 3 + 2, unnotified: 0 });
  expect(await database.query('SELECT DISTINCT replays FROM workflow_step')).toEqual([{ replays: 1 }]);
  expect(await database.query(`SELECT FROM job WHERE name = 'single'`)).toHaveLength(1);
});

test('a step from before whose event is too long for a notification keeps nobody else from theirs, and its subscribers hear of it', async () => {
  const { boss, database, reconcile, missed } = await createSteps();
  await boss.subscribe(REPLAY_EVENT, 'heard');
  await missed('good');
  await missed('long');
  await database.query(`UPDATE workflow_instance SET workflow = repeat('w', 8000) WHERE id = 'long'`);
  expect(await reconcile()).toMatchObject({ replayed: 2, unpublished: 0, unnotified: 1 });
  expect(await database.query('SELECT DISTINCT replays FROM workflow_step')).toEqual([{ replays: 1 }]);
  expect(await boss.fetch('heard', { batchSize: 5 })).toHaveLength(2);
});

test('names of every allowed length can be told, in a schema of the longest name', async () => {
  const schema = 'r'.repeat(47);
  const { database, reconcile, missed } = await createSteps({ ...QUICK, RECLAIMD_SCHEMA: schema }, { reclaimdSchema: schema });
  await missed('"'.repeat(500), 'completed', { step: '\\'.repeat(500), workflow: '"'.repeat(500) });
  const heard: ReplayedEvent[] = [];
  const listener = onReplay(database, (event) => heard.push(event), schema);
  onTestFinished(() => listener.stop());
  await listening(database);
  expect(await reconcile()).toMatchObject({ replayed: 1, unnotified: 0 });
  await waitFor('the event', () => heard.length === 1);
});

test('the replays of a batch are one audit event that names each of them, of whoever asked', async () => {
  const { database, context, reconcile, missed } = await createSteps();
  const first = await missed('i1');
  await missed('i2', 'failed');
  await reconcile();
  await database.query(`UPDATE workflow_step SET next_replay_at = NULL WHERE instance_id = 'i1'`);
  await reconcileWorkflows(context.reconcileDependencies('ann@desk'), { stack: null, env: null });
  await reconcile();
  const audit = await database.query<{ actor: string; detail: { steps: object[] } }>(
    `SELECT actor, detail FROM audit WHERE action = 'workflow_replay' ORDER BY seq`,
  );
  expect(audit).toMatchObject([
    {
      actor: 'reclaimd@test',
      detail: {
        steps: [
          { step: 'i1/one', job: `step/${first}`, outcome: 'completed', replay: 1 },
          { step: 'i2/one', outcome: 'failed' },
        ],
      },
    },
    { actor: 'ann@desk', detail: { steps: [{ step: 'i1/one', replay: 2 }] } },
  ]);
});

test('a step that got another job after it was read is not told of the old one', async () => {
  const { boss, database, context, missed } = await createSteps();
  await missed('i1');
  const { flows, ...dependencies } = context.reconcileDependencies();
  const [jobId] = (await boss.insert('step', [{}], { returnId: true })) ?? [];
  const retracking: typeof database = {
    ...database,
    transaction: async (work) => {
      await trackStep(database, { instanceId: 'i1', step: 'one', queue: 'step', jobId });
      return database.transaction(work);
    },
  };
  const report = await reconcileWorkflows({ ...dependencies, flows, database: retracking }, { stack: null, env: null });
  expect(report).toMatchObject({ replayed: 0, skipped: 1 });
  expect(await database.query('SELECT replays FROM workflow_step')).toEqual([{ replays: 0 }]);
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

test('a step that is exhausted while another look is under way keeps its incident', async () => {
  const { database, missed } = await createSteps();
  await missed('i1');
  await missed('i2');
  const exhaust = (instance: string) => database.query('UPDATE workflow_step SET exhausted_at = now() WHERE instance_id = $1', [instance]);
  await exhaust('i1');
  let looked = false;
  const slow: Database = {
    ...database,
    query: async <Row extends object>(text: string, values?: readonly unknown[]) => {
      const rows = await database.query<Row>(text, values);
      if (!looked && text.includes('workflow_step')) {
        looked = true;
        await exhaust('i2');
        await projectExhaustedSteps(database, 'another');
      }
      return rows;
    },
  };
  expect((await projectExhaustedSteps(slow, 'test')).resolved).toEqual([]);
  expect((await listIncidents(database, { class: 'workflow_stuck' })).incidents).toHaveLength(2);
});

test('a job that is retried under its own id and ends otherwise is told from the beginning, and no other', async () => {
  const { boss, url, database, reconcile, missed, pass } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_MAX: '2' });
  const jobId = await missed('i1', 'failed');
  const told = async () => (await reconcile()).events.map(({ outcome, replay }) => `${outcome} ${replay}`);
  const exhaust = async (outcome: string) => {
    for (const replay of [1, 2]) {
      expect(await told()).toEqual([`${outcome} ${replay}`]);
      await pass(600);
    }
    expect(await told()).toEqual([]);
    expect(await database.query('SELECT FROM workflow_step WHERE exhausted_at IS NOT NULL')).toHaveLength(1);
  };
  await exhaust('failed');
  expect((await run(url, 'workflows')).text).toMatch(/i1\/one .* failed +2 .* no more$/);
  await boss.retry('step', jobId);
  expect(await told()).toEqual([]);
  const [job] = await boss.fetch('step', { includeMetadata: true });
  expect(job && (await completeAttempt(boss, 'step', job))).toBe(true);
  expect((await reconcile(undefined, { dryRun: true })).events).toMatchObject([{ outcome: 'completed', replay: 1 }]);
  await exhaust('completed');
  // Retention takes the job in the end: how it ended was told.
  await boss.deleteJob('step', jobId);
  await reconcile();
  await pass(600);
  expect(await told()).toEqual([]);
});

test('another outcome is told once, though two passes saw it before either told it', async () => {
  const { boss, database, context, reconcile, missed } = await createSteps();
  const jobId = await missed('i1', 'failed');
  await reconcile();
  await boss.retry('step', jobId);
  const [job] = await boss.fetch('step', { includeMetadata: true });
  expect(job && (await completeAttempt(boss, 'step', job))).toBe(true);
  const second: typeof database = {
    ...database,
    transaction: async (work) => {
      expect((await reconcile()).events).toMatchObject([{ outcome: 'completed', replay: 1 }]);
      return database.transaction(work);
    },
  };
  const report = await reconcileWorkflows({ ...context.reconcileDependencies(), database: second }, { stack: null, env: null });
  expect(report).toMatchObject({ replayed: 0, failures: [] });
});

test.each([
  [9, 512],
  [10, 600],
])('after %i replays the next is %i s later: the pause grows up to ten minutes', async (before, seconds) => {
  const { database, reconcile, missed } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_MAX: '100' });
  await missed('i1');
  await database.query('UPDATE workflow_step SET replays = $1', [before]);
  expect((await reconcile()).replayed).toBe(1);
  const pauses = await database.query('SELECT extract(epoch FROM next_replay_at - replayed_at)::int AS pause FROM workflow_step');
  expect(pauses).toEqual([{ pause: seconds }]);
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

async function addSteps(database: Database, count: number, state: 'created' | 'completed'): Promise<void> {
  await database.query(
    `WITH made AS (INSERT INTO job (name, state, completed_on)
       SELECT 'step', $2::text::job_state, CASE WHEN $2::text = 'completed' THEN now() - interval '1 hour' END FROM generate_series(1, $1) RETURNING id)
     SELECT track_step('i-' || id, 'one', 'step', id) FROM made`,
    [count, state],
  );
}

test('thousands of steps in pages, and ten at once tell each event once', async () => {
  const { database, reconcile } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_AFTER: '10m' });
  await addSteps(database, 1_200, 'completed');
  const reports = await Promise.all(Array.from({ length: 10 }, () => reconcile()));
  expect(reports.reduce((sum, { replayed }) => sum + replayed, 0)).toBe(1_200);
  expect(await database.query('SELECT FROM workflow_step WHERE replays <> 1')).toEqual([]);
});

test('a pass that breaks off goes on where it was', async () => {
  const { database, reconcile } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_AFTER: '10m' });
  await addSteps(database, 2_200, 'completed');
  const first = await reconcile(undefined, { pages: 1 });
  expect(first.replayed).toBe(2_000);
  expect(await reconcile(undefined, { pages: 1, from: first.next })).toMatchObject({ replayed: 200, next: undefined });
});

test('a batch that cannot be told does not keep the others from theirs', async () => {
  const { database, reconcile } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_AFTER: '10m' });
  await addSteps(database, 1_200, 'completed');
  await database.query(
    `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'cursed'; END $$;
     CREATE TRIGGER refuse BEFORE UPDATE ON workflow_step FOR EACH ROW
       WHEN (old.instance_id LIKE 'i-0%' AND new.replays > 0) EXECUTE FUNCTION refuse()`,
  );
  const { replayed, failures, next } = await reconcile();
  expect(failures.map(String)).toEqual(['DatabaseError: cursed']);
  expect({ replayed, next }).toEqual({ replayed: 700, next: undefined });
});

test('a page costs what it holds, however many steps run, and locks none of them', async () => {
  const { database } = await createSteps();
  await addSteps(database, 5_000, 'created');
  await database.query('ANALYZE workflow_step, workflow_instance');
  await database.transaction(async (tx) => {
    const plan: string[] = [];
    const explaining: Sql = {
      query: async <Row extends object>(text: string, values: readonly unknown[] = []) => {
        for (const line of await tx.query<{ 'QUERY PLAN': string }>(`EXPLAIN (COSTS off) ${text}`, values)) plan.push(line['QUERY PLAN']);
        return tx.query<Row>(text, values);
      },
      execute: tx.execute,
    };
    const page = await readRunningSteps(explaining, { stack: null, env: null }, { instanceId: '', step: '' }, 0, 500);
    expect(page).toMatchObject({ running: 500, ended: [] });
    expect(plan.join('\n')).toContain('workflow_step_running');
    expect(plan.join('\n')).not.toMatch(/Seq Scan on (workflow_|job)|Hash Join/);
    // From another connection: nobody is in its way.
    const [moved] = await database.query(`SELECT step_moved(instance_id, step) AS moved FROM workflow_step ORDER BY instance_id LIMIT 1`);
    expect(moved).toEqual({ moved: true });
  });
});

const lookAgain = (database: Database) => database.query('UPDATE workflow_step SET next_replay_at = NULL');
const replays = async (database: Database) =>
  (await database.query<{ replays: number }>('SELECT max(replays) AS replays FROM workflow_step'))[0]?.replays ?? 0;

test('five daemons: one replay a turn, and none while another node has it', async () => {
  const { url, database, missed } = await createSteps();
  await missed('i1');
  await holdTurn(database, 'reconcile');
  const env = { RECLAIMD_REPLAY_AFTER: '0s', RECLAIMD_RECONCILE_INTERVAL: '3s' };
  for (let node = 0; node < 5; node++) await startTestDaemon(url, { ...env, RECLAIMD_NODE: `node-${node}` });
  await twoSweepsPass(database);
  expect(await replays(database)).toBe(0);
  await releaseTurn(database, 'reconcile');
  const turns = new Set<string>();
  await waitFor('three turns', async () => {
    // Due at any time: whoever looked would tell.
    await lookAgain(database);
    const [turn] = await database.query<{ due: string }>(
      `SELECT due_at::text AS due FROM turn WHERE name = 'reconcile' AND lease_until IS NULL`,
    );
    if (turn) turns.add(turn.due);
    return turns.size > 3;
  });
  // The first that was seen was the one before.
  expect(await replays(database)).toBeGreaterThanOrEqual(2);
  expect(await replays(database)).toBeLessThanOrEqual(turns.size);
});

test('nothing is told before the first sweep: what that ends is known then', async () => {
  const { url, database, missed } = await createSteps();
  await missed('i1');
  await holdTurn(database, 'sweep');
  const blocked = Promise.withResolvers<void>();
  // The sweep neither begins nor is told that it is somebody else's.
  const blocking = database.transaction(async (tx) => {
    // However long the four turns take.
    await tx.query('SET LOCAL idle_in_transaction_session_timeout = 0');
    await tx.query(`SELECT FROM turn WHERE name = 'sweep' FOR UPDATE`);
    await blocked.promise;
  });
  await startTestDaemon(url, QUICK);
  const turnOf = async (name: string) =>
    (await database.query<{ due: string }>('SELECT due_at::text AS due FROM turn WHERE name = $1', [name]))[0]?.due;
  for (let turn = 0; turn < 4; turn++) {
    const before = await turnOf('executors');
    await waitFor('the daemon to be at work', async () => (await turnOf('executors')) !== before);
  }
  expect(await replays(database)).toBe(0);
  blocked.resolve();
  await blocking;
  await waitFor('the replay', async () => (await replays(database)) > 0);
});

test('a daemon in dry run tells nobody, and takes no turn from those that do', async () => {
  const { url, database, missed } = await createSteps();
  await missed('i1');
  await database.query(`UPDATE job SET completed_on = now() - interval '1 hour'`);
  const dry = await startTestDaemon(url, { ...QUICK, RECLAIMD_NODE: 'dry', RECLAIMD_DRY_RUN: 'true', RECLAIMD_LISTEN: '127.0.0.1:0' });
  await passesOf('sweep', dry.url);
  await passesOf('reconcile', dry.url);
  expect(await replays(database)).toBe(0);
  expect(await database.query(`SELECT FROM turn WHERE name IN ('reconcile', 'ownership')`)).toEqual([]);
});

/** A command in this process. */
async function run(url: string, ...args: string[]) {
  const printed: string[] = [];
  let code = -1;
  const env = { DATABASE_URL: url, RECLAIMD_REPLAY_AFTER: '0s', RECLAIMD_REPLAY_MAX: '1' };
  const surroundings = { env, out: (text: string) => printed.push(text), signal: new AbortController().signal };
  await createProgram(surroundings, '0', (given) => {
    code = given;
  }).parseAsync(args, { from: 'user' });
  return { code, text: printed.join('\n') };
}

test('the command reconciles: dry, then for real, in the name of who asks', async () => {
  const { url, database, missed } = await createSteps();
  await missed('i1');
  const reconcile = async (...args: string[]) => {
    const { code, text } = await run(url, 'reconcile', '--json', ...args);
    return { code, said: JSON.parse(text) as unknown };
  };
  expect(await reconcile('--dry-run')).toMatchObject({ code: 0, said: { dryRun: true, replayed: 1 } });
  expect(await database.query('SELECT replays FROM workflow_step')).toEqual([{ replays: 0 }]);
  expect(await reconcile('--actor', 'ann@desk')).toMatchObject({
    code: 0,
    said: { replayed: 1, skipped: 0, events: [{ instanceId: 'i1', outcome: 'completed' }] },
  });
  expect(await database.query('SELECT replays FROM workflow_step')).toEqual([{ replays: 1 }]);
  expect(await database.query('SELECT actor, action FROM audit')).toEqual([{ actor: 'ann@desk', action: 'workflow_replay' }]);
});

test('a step that was told how its job ended is told the same when the job is gone, and nothing of the job before', async () => {
  const { boss, database, reconcile, missed, pass } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_MAX: '3' });
  const jobId = await missed('i1');
  expect((await reconcile()).events).toMatchObject([{ outcome: 'completed', replay: 1 }]);
  await boss.deleteJob('step', jobId);
  await pass(3_600);
  await reconcile();
  await pass(3_600);
  expect((await reconcile()).events).toMatchObject([{ outcome: 'completed', replay: 2 }]);
  // It begins afresh, and that job is lost before anybody saw its end.
  const other = await missed('i1', 'created');
  await database.query('DELETE FROM job WHERE id = $1', [other]);
  await reconcile();
  await pass(3_600);
  expect((await reconcile()).events).toMatchObject([{ jobId: other, outcome: 'lost', replay: 1 }]);
});

test('a step that was told in vain is shown, and told again when a person asks for it', async () => {
  const { url, database, reconcile, missed, pass } = await createSteps({ ...QUICK, RECLAIMD_REPLAY_MAX: '1' });
  expect((await run(url, 'workflows')).text).toBe('no flow is stuck');
  const jobId = await missed('i1');
  await reconcile();
  expect(JSON.parse((await run(url, 'workflows', '--json')).text)).toMatchObject({
    steps: { running: 1, late: [{ instanceId: 'i1', step: 'one', job: `step/${jobId}`, replays: 1, againAt: expect.any(String) }] },
  });
  const again = (step: string, ...args: string[]) => run(url, 'reconcile', '--again', step, '--actor', 'ann@desk', ...args);
  const why = ['--reason', 'its engine is mended'];
  // Not while it is still told by itself.
  expect(await again('i1/one', ...why)).toMatchObject({ code: 3, text: expect.stringContaining('no exhausted step is called i1/one') });
  const refusal = await again('i1/one', '--json', ...why);
  expect({ ...refusal, text: JSON.parse(refusal.text) }).toMatchObject({
    code: 3,
    text: { done: false, message: expect.stringContaining('no exhausted step is called i1/one') },
  });
  await pass(60);
  await reconcile();
  expect((await run(url, 'workflows')).text).toMatch(/steps of engines: 1 under way, 1 late\n.*\ni1\/one .* no more$/);
  await expect(again('i1/one')).rejects.toThrow('--reason: 8 characters');
  await expect(again('i1/one', '--dry-run', ...why)).rejects.toThrow('--again: a dry run');
  expect(await again('i1/one', ...why)).toMatchObject({ code: 0 });
  expect(await database.query(`SELECT actor, target, reason FROM audit WHERE action = 'reconcile'`)).toEqual([
    { actor: 'ann@desk', target: 'i1/one', reason: 'its engine is mended' },
  ]);
  expect((await reconcile()).events).toMatchObject([{ instanceId: 'i1', replay: 1 }]);
});

test('two steps of one spelling are not told apart by it, and left alone', async () => {
  const { url, database, missed } = await createSteps();
  await missed('a', 'completed', { step: 'b/c' });
  await missed('a/b', 'completed', { step: 'c' });
  await database.query('UPDATE workflow_step SET exhausted_at = now()');
  expect(await run(url, 'reconcile', '--again', 'a/b/c', '--reason', 'long enough', '--actor', 'ann@desk')).toMatchObject({
    code: 3,
    text: expect.stringContaining('several exhausted steps'),
  });
});
