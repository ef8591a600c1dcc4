import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { PgBoss } from 'pg-boss';
import { describe, expect, onTestFinished, test } from 'vitest';
import { LockNotAvailable } from '../../src/postgres/errors.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import type { RepairDependencies } from '../../src/repairs/preview.ts';
import { savePreview } from '../../src/repairs/queries.ts';
import { anotherNodeBeats } from '../support/beat.ts';
import { createExecutor } from '../support/executor.ts';
import { ANN, beforeStatements, createDesk, previewed, REASON } from '../support/repairs.ts';
import { waitFor } from '../support/wait.ts';

describe('between preview and execution', () => {
  type World = Awaited<ReturnType<typeof createDesk>>;
  const redriveAndComplete = async ({ boss }: World) => {
    await boss.redrive('dead');
    const [again] = await boss.fetch('mail');
    await boss.complete('mail', again?.id ?? '');
  };
  test.each<[string, (world: World, id: string) => Promise<unknown>, string]>([
    ['finished', ({ boss }, id) => boss.complete('mail', { id, retryCount: 0 }), 'state was active, is completed'],
    ['given back', ({ boss }, id) => boss.fail('mail', { id, retryCount: 0 }), 'state was active, is retry'],
    ['deleted', ({ boss }, id) => boss.deleteJob('mail', id), 'state was active, is gone'],
    [
      'taken by another',
      async ({ boss, url, database }, id) => {
        const other = await createExecutor(url, database, 'other');
        await boss.fail('mail', { id, retryCount: 0 });
        await other.fetch('mail');
      },
      'attempt was 0, is 1; executor was worker, is other',
    ],
    [
      'its executor alive again',
      ({ database }) => database.query(`UPDATE executor SET proof = NULL, dead_at = NULL, beat_at = now(), beat_seconds = 30`),
      'its executor was dead, is alive',
    ],
  ])('the job was %s: refused, said in what way, recorded', async (_, change, drift) => {
    const world = await createDesk();
    const [id = ''] = await world.begin();
    await world.executor.die();
    const { token } = previewed(await world.preview('job_rescue', `mail/${id}`));
    await change(world, id);
    const before = await world.state(id);
    expect(await world.execute(token)).toMatchObject({ done: false, refused: 'drifted', message: expect.stringContaining(drift) });
    expect(await world.state(id)).toBe(before);
    expect(await world.audit()).toMatchObject([
      { outcome: 'drifted', actor: ANN, detail: { drifted: [{ target: `mail/${id}`, drift: expect.stringContaining(drift) }] } },
    ]);
    expect(await world.execute(token)).toMatchObject({ refused: 'drifted' });
  });

  test("the copy of another queue's job of the same id is not told of", async () => {
    const { boss, preview } = await createDesk({
      queues: [{ name: 'dead' }, { name: 'mail', retryLimit: 0 }, { name: 'pay', retryLimit: 0, deadLetter: 'dead' }],
    });
    const id = randomUUID();
    for (const queue of ['mail', 'pay']) {
      await boss.send(queue, {}, { id });
      await boss.fetch(queue);
      await boss.fail(queue, id);
    }
    const warningsOf = async (queue: string) => previewed(await preview('job_retry', `${queue}/${id}`)).plan.jobs[0]?.warnings;
    expect(await warningsOf('mail')).toEqual([]);
    expect(await warningsOf('pay')).toEqual([expect.stringContaining('its copy dead/')]);
  });

  test.each<[string, (world: World, copy: string) => Promise<unknown>, RegExp]>([
    ['redriven and done', redriveAndComplete, /was dead\/.* \(created\), is mail\/.* \(completed\)/],
    ['worked on in the dead letter queue', ({ boss }) => boss.fetch('dead'), /was dead\/.* \(created\), is dead\/.* \(active\)/],
    ['gone', ({ boss }, copy) => boss.deleteJob('dead', copy), /was dead\/.* \(created\), is none/],
  ])('the copy of a discarded job was %s: its retry is refused, and the next plan tells', async (_, change, drift) => {
    const world = await createDesk({ queues: [{ name: 'dead' }, { name: 'mail', deadLetter: 'dead' }] });
    const [id = ''] = await world.begin();
    await world.executor.die();
    await world.execute(previewed(await world.preview('job_discard', `mail/${id}`)).token);
    const [copy] = await world.boss.findJobs('dead');
    const shown = previewed(await world.preview('job_retry', `mail/${id}`));
    expect(shown.plan.jobs[0]?.warnings).toEqual([expect.stringContaining(`its copy dead/${copy?.id} is created`)]);
    await change(world, copy?.id ?? '');
    const now = previewed(await world.preview('job_retry', `mail/${id}`));
    expect(now.token).not.toBe(shown.token);
    expect(now.plan.jobs[0]?.warnings).not.toEqual(shown.plan.jobs[0]?.warnings);
    expect(await world.execute(shown.token)).toMatchObject({ refused: 'drifted', message: expect.stringMatching(drift) });
    expect(await world.state(id)).toBe('failed');
    expect(await world.execute(now.token)).toMatchObject({ done: true });
  });

  test('the executor came back: the whole of its rescue is refused', async () => {
    const { begin, executor, preview, execute, database } = await createDesk();
    await begin(3);
    await executor.die();
    const { token } = previewed(await preview('executor_rescue', 'worker'));
    await database.query(`UPDATE executor SET proof = NULL, dead_at = NULL, beat_at = now(), beat_seconds = 30`);
    expect(await execute(token)).toMatchObject({ refused: 'drifted', message: expect.stringContaining('was dead, is alive') });
    expect(await database.query(`SELECT FROM job WHERE state = 'active'`)).toHaveLength(3);
  });

  test('silence that has become proof is no drift', async () => {
    const { begin, executor, preview, execute, state } = await createDesk();
    const [id = ''] = await begin();
    await executor.boss.stop({ graceful: false });
    await executor.fallSilent(3600);
    const plan = previewed(await preview('job_rescue', `mail/${id}`));
    expect(plan.plan.jobs).toMatchObject([{ before: { verdict: 'missing' } }]);
    await executor.die();
    expect(await execute(plan.token)).toMatchObject({ done: true });
    expect(await state(id)).toBe('retry');
  });

  test('that a sweep would not believe its silence now is said, and keeps nobody from it who knows better', async () => {
    const { begin, executor, preview, execute, state, database } = await createDesk();
    const [id = ''] = await begin();
    await anotherNodeBeats(database);
    await executor.boss.stop({ graceful: false });
    await executor.fallSilent(3600);
    const before = previewed(await preview('executor_rescue', 'worker'));
    expect(before.cautions).toEqual([]);
    // It has had no time for two beats since.
    await database.query('UPDATE executor SET beat_seconds = 60');
    await database.query('UPDATE fleet SET comeback_at = now()');
    const doubt = 'the silence of worker counts for nothing now: the database, or every daemon, was away until lately';
    expect(await execute(before.token), 'which it was not when that was shown').toMatchObject({
      refused: 'drifted',
      message: `${doubt}: make a new preview`,
    });
    expect(await state(id)).toBe('active');
    const { token, cautions } = previewed(await preview('executor_rescue', 'worker'));
    expect(cautions).toEqual([doubt]);
    expect(await execute(token)).toMatchObject({ done: true });
    expect(await state(id)).toBe('retry');
  });

  test.each<[string, (world: World, id: string) => Promise<unknown>, string]>([
    [
      'the policy of its queue',
      ({ database }) => database.query(`INSERT INTO policy (queue, policy, updated_by) VALUES ('mail', 'restart', 'bob@desk')`),
      'policy was fail, is restart; source of the policy was default, is table',
    ],
    [
      'its policy, to hold it',
      ({ database }) => database.query(`INSERT INTO policy (queue, policy, updated_by) VALUES ('mail', 'hold', 'bob@desk')`),
      'policy was fail, is hold; source of the policy was default, is table',
    ],
    [
      'where its copy goes',
      ({ database }, id) => database.query(`UPDATE job SET dead_letter = 'dead' WHERE id = $1`, [id]),
      'dead letter queue was none, is dead',
    ],
    ['its retries', ({ database }, id) => database.query('UPDATE job SET retry_limit = 0 WHERE id = $1', [id]), 'retry limit was 2, is 0'],
    [
      'how often it was given back',
      ({ database }, id) =>
        database.query(
          `INSERT INTO recovery (queue, job_id, retry_count, verdict, policy, policy_source, outcome, reason, node)
           VALUES ('mail', $1, 0, 'dead', 'fail', 'default', 'failed', 'it was gone', 'there')`,
          [id],
        ),
      'times that it was given back was 0, is 1',
    ],
  ])('%s has changed: the job is left alone, and the drift named', async (_, change, drift) => {
    const world = await createDesk({ queues: [{ name: 'dead' }, { name: 'mail' }] });
    const [id = ''] = await world.begin();
    await world.executor.die();
    const shown = previewed(await world.preview('job_rescue', `mail/${id}`));
    await change(world, id);
    const now = await world.preview('job_rescue', `mail/${id}`);
    expect(now).not.toMatchObject({ token: shown.token });
    expect(await world.execute(shown.token)).toMatchObject({ refused: 'drifted', message: `${drift}: make a new preview` });
    expect(await world.state(id)).toBe('active');
    expect((await world.audit()).at(-1)).toMatchObject({ outcome: 'drifted', detail: { drifted: [{ target: `mail/${id}`, drift }] } });
  });

  test.each([
    ['job_rescue', 'active', 'retry'],
    ['job_retry', 'cancelled', 'created'],
  ])('between its look and its change nobody gets at the job: %s of one that is %s', async (action, was, becomes) => {
    const { boss, begin, executor, preview, dependencies, state, database } = await createDesk();
    const [id = ''] = await begin();
    if (was === 'cancelled') await boss.cancel('mail', id);
    await executor.die();
    const { token } = previewed(await preview(action, `mail/${id}`));
    let writer: Promise<unknown> | undefined;
    const watched = beforeStatements(dependencies.database, async (text) => {
      if (writer || text !== 'SAVEPOINT change') return;
      writer = was === 'active' ? boss.complete('mail', id) : boss.deleteJob('mail', id);
      await waitFor(
        'the other writer to wait for the lock',
        async () =>
          (await database.query(`SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`)).length > 0,
      );
      // It has not got past the lock: the job is as it was looked at.
      expect(await state(id)).toBe(was);
    });
    const done = await executeRepair({ ...dependencies, database: watched } as RepairDependencies, { token, actor: ANN, reason: REASON });
    expect(done).toMatchObject({ done: true, partial: false, targets: [{ outcome: 'done', state: becomes }] });
    await writer;
  });

  test('somebody holds the lock of the job: refused as busy, and the token is still good', async () => {
    const { url, begin, executor, preview, execute, state, audit } = await createDesk();
    const [id = ''] = await begin();
    await executor.die();
    const { token } = previewed(await preview('job_rescue', `mail/${id}`));
    const other = new pg.Client({ connectionString: url });
    await other.connect();
    onTestFinished(() => other.end());
    await other.query('BEGIN');
    await other.query('SELECT FROM pgboss.job WHERE id = $1 FOR UPDATE', [id]);
    expect(await execute(token)).toMatchObject({ refused: 'busy', message: expect.stringContaining('the token is still good') });
    await other.query('ROLLBACK');
    expect(await state(id)).toBe('active');
    expect(await execute(token)).toMatchObject({ done: true });
    expect((await audit()).map(({ outcome }) => outcome)).toEqual(['failed', 'done']);
  });

  test.each([
    ['of a lock that is not to be had', new LockNotAvailable('no', '55P03', undefined), { refused: 'busy' }],
    ['of a fault', new Error('no'), undefined],
  ])('no look at executors, because %s: recorded, and the token is still good', async (_, error, refusal) => {
    const { begin, executor, preview, execute, dependencies, state, audit } = await createDesk();
    const [id = ''] = await begin();
    await executor.die();
    const { token } = previewed(await preview('job_rescue', `mail/${id}`));
    const registry = { importExecutors: () => Promise.reject(error) };
    const blind = executeRepair({ ...dependencies, registry }, { token, actor: ANN, reason: REASON });
    if (refusal) expect(await blind).toMatchObject(refusal);
    else await expect(blind).rejects.toBe(error);
    expect(await state(id)).toBe('active');
    expect(await execute(token)).toMatchObject({ done: true });
    expect((await audit()).map(({ outcome }) => outcome)).toEqual(['failed', 'done']);
  });
});

describe('a beat that nobody has taken over yet', () => {
  /** A real instance that works on a job; our copy of its beats is only as new as the last import. */
  async function createInstance() {
    const fleet = await createDesk();
    const { url, boss, database, dependencies } = fleet;
    const instance = new PgBoss({ connectionString: url, supervise: false, schedule: false, instanceHeartbeatSeconds: 60 });
    instance.on('error', () => undefined);
    await instance.start();
    onTestFinished(() => instance.stop({ graceful: false }));
    const id = (await boss.send('mail', {})) ?? '';
    await instance.fetch('mail');
    await dependencies.registry.importExecutors(database);
    const [row] = await database.query<{ id: string }>(`SELECT id FROM executor WHERE kind = 'pgboss'`);
    const executorId = row?.id ?? '';
    return {
      ...fleet,
      id,
      executorId,
      /** As if it had last been heard of so long ago, in the registry, too, until it beats. Its sessions, which beat by themselves, are not known. */
      fallSilent: async (proof: string | null) => {
        await database.query(
          `UPDATE executor SET beat_at = now() - interval '10 minutes', session_at = NULL, started_at = started_at - interval '20 minutes',
             application_name = 'elsewhere', proof = $2::text, dead_at = CASE WHEN $2::text IS NOT NULL THEN now() END WHERE id = $1`,
          [executorId, proof],
        );
        for (const table of ['attempt_a', 'attempt_b']) await database.query(`UPDATE ${table} SET application_name = 'elsewhere'`);
        await database.query(`UPDATE instance SET heartbeat_on = now() - interval '10 minutes', application_name = 'elsewhere'`);
      },
      beat: () => database.query('UPDATE instance SET heartbeat_on = now()'),
    };
  }

  test.each([
    ['it was silent', null, 'missing'],
    ['it was proven dead, wrongly', 'process_gone', 'dead'],
  ])('%s: no preview, and no execution of an earlier one', async (_, proof, verdict) => {
    const { id, executorId, fallSilent, beat, preview, execute, state, database } = await createInstance();
    await fallSilent(proof);
    const job = previewed(await preview('job_rescue', `mail/${id}`));
    const all = previewed(await preview('executor_rescue', executorId));
    expect(job.plan.jobs).toMatchObject([{ before: { verdict } }]);
    await beat();
    expect(await execute(job.token)).toMatchObject({ refused: 'drifted', message: expect.stringContaining(`was ${verdict}, is alive`) });
    await fallSilent(proof);
    await beat();
    expect(await execute(all.token)).toMatchObject({ refused: 'drifted', message: expect.stringContaining(`was ${verdict}, is alive`) });
    for (const [action, target] of [
      ['job_rescue', `mail/${id}`],
      ['job_discard', `mail/${id}`],
      ['executor_rescue', executorId],
    ] as const) {
      await fallSilent(proof);
      await beat();
      expect(await preview(action, target)).toMatchObject({ refused: 'impossible', message: expect.stringContaining('is alive') });
    }
    if (proof) {
      await fallSilent(proof);
      await beat();
      await database.query(`UPDATE executor SET unit = 'app.service', witness_node = 'gone' WHERE id = $1`, [executorId]);
      // Who was wrong about its death is no witness any more.
      const stop = await preview('executor_stop_and_rescue', executorId);
      expect(stop).toMatchObject({
        refused: 'impossible',
        message: expect.stringMatching(/^no node knows in which unit .*: end its process/),
      });
    }
    expect(await state(id)).toBe('active');
  });

  test.each(['job_rescue', 'executor_rescue'])('an execution of %s that has begun sees it', async (action) => {
    const { id, executorId, fallSilent, beat, preview, dependencies, state } = await createInstance();
    await fallSilent(null);
    const { token } = previewed(await preview(action, action === 'job_rescue' ? `mail/${id}` : executorId));
    const beaten: RepairDependencies['database'] = {
      ...dependencies.database,
      transaction: async (work) => {
        await beat();
        return dependencies.database.transaction(work);
      },
    };
    const ended = await executeRepair({ ...dependencies, database: beaten }, { token, actor: ANN, reason: REASON });
    expect(ended).toMatchObject({ refused: 'drifted', message: expect.stringContaining('was missing, is alive') });
    expect(await state(id)).toBe('active');
  });

  test('a hung executor that has recovered is not stopped', async () => {
    const { executorId, fallSilent, beat, execute, audit, database } = await createInstance();
    await fallSilent(null);
    await database.query(
      `INSERT INTO node (node, daemon_id, host, pid, boot_id, version) VALUES ('far', gen_random_uuid(), 'far', 1, 'b', '1')`,
    );
    await database.query('INSERT INTO daemon (id) SELECT daemon_id FROM node');
    await database.query(
      `UPDATE executor SET witness_node = node, witness_daemon_id = daemon_id, witness_boot_id = boot_id, unit = 'app.service'
       FROM node WHERE id = $1 AND node = 'far'`,
      [executorId],
    );
    const seen = { unit: 'app.service', activeState: 'active', subState: 'running', result: 'success', invocation: 'i' };
    const request = { action: 'executor_stop_and_rescue', targets: [executorId], policy: null };
    const saved = await savePreview(database, {
      actor: ANN,
      node: 'desk',
      request,
      plan: {
        ...request,
        executor: { id: executorId, verdict: 'hung', reason: 'its process is there' },
        jobs: [],
        unit: { node: 'far', unit: 'app.service', command: 'unit_stop', before: seen, executors: [], after: 'inactive', warnings: [] },
        flow: null,
        left: 0,
        leftQueues: [],
        leftOut: [],
        voidSilences: [],
      },
      planHash: 'any',
    });
    await beat();
    expect(await execute(saved.token)).toMatchObject({ refused: 'drifted', message: expect.stringContaining('was hung, is alive') });
    expect(await database.query('SELECT FROM node_command')).toEqual([]);
    expect(await audit()).toMatchObject([{ outcome: 'drifted', target: executorId }]);
  });
});
