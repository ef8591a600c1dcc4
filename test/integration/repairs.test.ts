import { describe, expect, onTestFinished, test } from 'vitest';
import type { HostAuthorize } from '../../src/authorization/authorize.ts';
import { projectIncidents } from '../../src/project-incidents.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import type { RepairDependencies } from '../../src/repairs/preview.ts';
import { createBreakingProxy } from '../support/breaking-proxy.ts';
import { openTestContext, sweepOnce } from '../support/executor.ts';
import { ANN, createDesk, failAt, previewed, REASON } from '../support/repairs.ts';
import { waitFor } from '../support/wait.ts';

describe('each action does what its preview showed, and is audited once', () => {
  test('job_rescue by the policy of the queue, or by the one that is named', async () => {
    const { begin, executor, preview, execute, state, audit, database } = await createDesk();
    const [first = '', second = ''] = await begin(2);
    await executor.die();
    const plan = previewed(await preview('job_rescue', `mail/${first}`));
    expect(plan.plan.jobs).toMatchObject([
      { before: { state: 'active', retryCount: 0, executor: 'worker', verdict: 'dead' }, after: 'retry' },
    ]);
    expect(await state(first)).toBe('active');
    expect(await execute(plan.token)).toEqual({
      done: true,
      action: 'job_rescue',
      partial: false,
      targets: [{ target: `mail/${first}`, outcome: 'done', state: 'retry' }],
    });
    expect(await execute(previewed(await preview('job_rescue', `mail/${second}`, { policy: 'discard' })).token)).toMatchObject({
      done: true,
    });
    expect([await state(first), await state(second)]).toEqual(['retry', 'failed']);
    expect(await audit()).toMatchObject([
      {
        actor: ANN,
        action: 'job_rescue',
        target: `mail/${first}`,
        outcome: 'done',
        reason: REASON,
        detail: { preview: plan.number, effects: [{ job: `mail/${first}:0`, executor: 'worker', policy: 'fail', outcome: 'failed' }] },
      },
      { action: 'job_rescue', target: `mail/${second}`, detail: { effects: [{ policy: 'discard', outcome: 'discarded' }] } },
    ]);
    expect(await database.query(`SELECT policy_source, proof FROM recovery`)).toEqual([
      { policy_source: 'operator', proof: 'process_gone' },
      { policy_source: 'operator', proof: 'process_gone' },
    ]);
  });

  test('what a sweep holds wants a policy by name, whatever the rules of the desk say', async () => {
    const { url, begin, executor, preview, execute, state } = await createDesk();
    const [id = ''] = await begin();
    await executor.die();
    await sweepOnce(url, { RECLAIMD_POLICIES: 'mail=hold' });
    for (const [action, target] of [
      ['job_rescue', `mail/${id}`],
      ['executor_rescue', 'worker'],
    ] as const)
      expect(await preview(action, target)).toMatchObject({ refused: 'impossible', message: expect.stringContaining('name another') });
    expect(await execute(previewed(await preview('job_rescue', `mail/${id}`, { policy: 'restart' })).token)).toMatchObject({ done: true });
    expect(await state(id)).toBe('retry');
  });

  test.each(['discard', 'hold'])('poison (%s) wants a policy by name, is shown as such, and recorded as such', async (poison) => {
    const { url, begin, executor, preview, execute, state, database } = await createDesk();
    const [first = '', second = ''] = await begin(2);
    await executor.die();
    await database.query(
      `INSERT INTO policy (queue, policy, max_recoveries, poison, updated_by) VALUES ('mail', 'fail', 0, $1, 'bob@desk')`,
      [poison],
    );
    const why =
      'it is poison, given back 0 times before, of 0 that its queue allows: name what becomes of it with --policy restart, fail or discard';
    expect(await preview('job_rescue', `mail/${first}`)).toMatchObject({ refused: 'impossible', message: why });
    const wide = await preview('executor_rescue', 'worker');
    expect(wide).toMatchObject({ refused: 'impossible', targets: [{ why }, { why }] });
    for (const [id, policy, becomes] of [
      [first, 'restart', 'retry'],
      [second, 'discard', 'failed'],
    ] as const) {
      const { token, plan } = previewed(await preview('job_rescue', `mail/${id}`, { policy }));
      expect(plan.jobs[0]?.warnings).toContain('it is poison, given back 0 times before, of 0 that its queue allows');
      expect(await execute(token)).toMatchObject({ done: true });
      expect(await state(id)).toBe(becomes);
    }
    expect(await database.query('SELECT policy, policy_source, poison FROM recovery ORDER BY id')).toEqual([
      { policy: 'restart', policy_source: 'operator', poison: true },
      { policy: 'discard', policy_source: 'operator', poison: true },
    ]);
    // A person moved both on.
    await projectIncidents(await openTestContext(url));
    expect(await database.query(`SELECT FROM incident WHERE class = 'poison_job' AND resolved_at IS NULL`)).toEqual([]);
  });

  test.each([
    ['job_discard', undefined],
    ['job_rescue', 'fail'],
    ['job_rescue', 'restart'],
  ])('a poison job that a sweep holds: %s by a person (%s) closes its incident', async (action, policy) => {
    const { url, begin, executor, preview, execute, database } = await createDesk();
    const [id = ''] = await begin();
    await executor.die();
    await sweepOnce(url, { RECLAIMD_MAX_RECOVERIES: '0', RECLAIMD_POISON: 'hold' });
    const context = await openTestContext(url, { RECLAIMD_MAX_RECOVERIES: '0' });
    const open = async () => {
      await projectIncidents(context);
      return (await database.query(`SELECT FROM incident WHERE class = 'poison_job' AND resolved_at IS NULL`)).length;
    };
    expect(await open()).toBe(1);
    const { token } = previewed(await preview(action, `mail/${id}`, policy === undefined ? {} : { policy }));
    expect(await execute(token)).toMatchObject({ done: true });
    expect(await open()).toBe(0);
  });

  test('job_discard, job_retry and job_cancel; a cancelled job can be brought back', async () => {
    const { boss, begin, executor, preview, execute, state, audit } = await createDesk();
    const [id = ''] = await begin();
    await executor.die();
    await execute(previewed(await preview('job_discard', `mail/${id}`)).token);
    expect(await state(id)).toBe('failed');
    await execute(previewed(await preview('job_retry', `mail/${id}`)).token);
    expect(await state(id)).toBe('retry');
    await execute(previewed(await preview('job_cancel', `mail/${id}`)).token);
    expect(await state(id)).toBe('cancelled');
    await execute(previewed(await preview('job_retry', `mail/${id}`)).token);
    expect(await state(id)).toBe('created');
    expect((await audit()).map(({ action, outcome }) => `${action} ${outcome}`)).toEqual([
      'job_discard done',
      'job_retry done',
      'job_cancel done',
      'job_retry done',
    ]);
    const [job] = await boss.fetch('mail');
    expect(job?.id).toBe(id);
  });

  test('job_cancel of a running job: its executor can complete it no more', async () => {
    const { begin, executor, preview, execute, state } = await createDesk();
    const [id = ''] = await begin();
    const plan = previewed(await preview('job_cancel', `mail/${id}`));
    expect(plan.plan.jobs[0]?.warnings.join()).toContain('its result is ignored');
    await execute(plan.token);
    await executor.boss.complete('mail', { id, retryCount: 0 });
    expect(await state(id)).toBe('cancelled');
  });

  test('executor_rescue gives back all 200 attempts of a dead executor in one go', async () => {
    const { begin, executor, preview, execute, audit, database } = await createDesk();
    await begin(200);
    await executor.die();
    const plan = previewed(await preview('executor_rescue', 'worker'));
    expect(plan.plan.jobs).toHaveLength(200);
    const result = await execute(plan.token);
    expect(result).toMatchObject({ done: true, partial: false });
    expect(await database.query(`SELECT FROM job WHERE state = 'retry'`)).toHaveLength(200);
    const events = await audit();
    expect(events).toMatchObject([{ action: 'executor_rescue', target: 'worker', outcome: 'done' }]);
    expect(events[0]?.detail['effects']).toHaveLength(200);
  });

  test('executor_rescue when half of its jobs have moved does the other half, and says which', async () => {
    const { boss, begin, executor, preview, execute, audit, database } = await createDesk();
    const ids = await begin(10);
    await executor.die();
    const { token } = previewed(await preview('executor_rescue', 'worker'));
    await boss.complete('mail', ids.slice(0, 5));
    const result = await execute(token);
    expect(result).toMatchObject({ done: true, partial: true });
    const targets = result.done ? result.targets : [];
    expect(targets.filter(({ outcome }) => outcome === 'done')).toHaveLength(5);
    expect(targets.filter((one) => one.outcome === 'drifted' && one.drift.includes('completed'))).toHaveLength(5);
    expect(await database.query(`SELECT FROM job WHERE state = 'retry'`)).toHaveLength(5);
    expect(await audit()).toMatchObject([{ outcome: 'partial', detail: { drifted: expect.arrayContaining([expect.anything()]) } }]);
  });

  test('rescuing a dead executor one job at a time works too', async () => {
    const { begin, executor, preview, execute, state } = await createDesk();
    const ids = await begin(3);
    await executor.die();
    for (const id of ids) expect(await execute(previewed(await preview('job_rescue', `mail/${id}`)).token)).toMatchObject({ done: true });
    expect(await Promise.all(ids.map((id) => state(id)))).toEqual(['retry', 'retry', 'retry']);
    expect(await preview('executor_rescue', 'worker')).toMatchObject({
      refused: 'impossible',
      message: expect.stringContaining('no attempt'),
    });
  });

  test('a job that is named twice, in whatever letters, is repaired once', async () => {
    const { begin, executor, preview, execute, audit, database } = await createDesk();
    const [id = ''] = await begin();
    await executor.die();
    const twice = [`mail/${id.toUpperCase()}`, `mail/${id}`];
    const { token } = previewed(await preview('job_rescue', twice));
    expect(await execute(token)).toMatchObject({ partial: false, targets: [{ target: `mail/${id}` }] });
    expect(await database.query('SELECT FROM recovery')).toHaveLength(1);
    expect(await audit()).toMatchObject([{ target: `mail/${id}`, detail: { effects: [{ job: `mail/${id}:0` }] } }]);
  });

  test('several jobs, of which some cannot: those are named and left out', async () => {
    const { boss, begin, executor, preview, execute } = await createDesk();
    const [id = ''] = await begin();
    await executor.die();
    const waiting = await boss.send('mail', {});
    const plan = previewed(await preview('job_rescue', [`mail/${id}`, `mail/${waiting}`]));
    expect(plan.plan.leftOut).toEqual([{ target: `mail/${waiting}`, why: expect.stringContaining('it is created') }]);
    expect(await execute(plan.token)).toMatchObject({ done: true, partial: false, targets: [{ target: `mail/${id}` }] });
  });
});

describe('a preview', () => {
  test('writes nothing but itself; the same ready plan is the same preview, another plan another', async () => {
    const { boss, preview, database, audit } = await createDesk();
    const id = await boss.send('mail', {});
    const before = await database.query('SELECT * FROM job');
    const [first, again] = [previewed(await preview('job_cancel', `mail/${id}`)), previewed(await preview('job_cancel', `mail/${id}`))];
    expect(again.token).toBe(first.token);
    expect(previewed(await preview('job_cancel', `mail/${id}`, { actor: 'bob@desk' })).token).not.toBe(first.token);
    await boss.fetch('mail');
    expect(previewed(await preview('job_cancel', `mail/${id}`)).token).not.toBe(first.token);
    await database.query(`UPDATE repair_preview SET expires_at = now()`);
    expect(previewed(await preview('job_cancel', `mail/${id}`)).expiresInSeconds).toBeGreaterThan(14 * 60);
    expect(before).toHaveLength(1);
    expect(await audit()).toEqual([]);
  });

  test('what is left out by now makes another plan, and the token is of what was shown', async () => {
    const { boss, preview, database } = await createDesk();
    const ids = [(await boss.send('mail', {})) ?? '', (await boss.send('mail', {})) ?? ''];
    const targets = ids.map((id) => `mail/${id}`);
    const both = previewed(await preview('job_cancel', targets));
    await boss.complete('mail', ids[1] ?? '', {}, { includeQueued: true });
    const completed = previewed(await preview('job_cancel', targets));
    await boss.deleteJob('mail', ids[1] ?? '');
    const gone = previewed(await preview('job_cancel', targets));
    expect(new Set([both.number, completed.number, gone.number]).size).toBe(3);
    for (const { number, plan } of [completed, gone])
      expect(await database.query(`SELECT plan -> 'leftOut' AS left FROM repair_preview WHERE number = $1`, [number])).toEqual([
        { left: plan.leftOut },
      ]);
  });

  test.each([
    ['job_fix', ['mail/x'], {}, 'unsupported', 'job_retry, job_rescue'],
    ['job_retry', ['mail'], {}, 'target', 'no QUEUE/JOB-ID'],
    ['job_retry', [], {}, 'target', 'QUEUE/JOB-ID, an executor'],
    ['job_retry', ['mail/00000000-0000-0000-0000-000000000000'], {}, 'impossible', 'no such job'],
    ['job_retry', ['mail/00000000-0000-0000-0000-000000000000'], { policy: 'fail' }, 'target', 'takes no policy'],
    ['executor_rescue', ['nobody'], {}, 'target', 'no executor nobody'],
    ['executor_rescue', ['worker'], {}, 'impossible', 'executor_stop_and_rescue stops it first'],
    ['executor_rescue', ['worker'], { policy: 'hold' }, 'target', 'restart, fail or discard'],
  ])('of %s on %j with %j is refused early: %s', async (action, targets, more, refused, message) => {
    const { preview } = await createDesk();
    expect(await preview(action, targets, more)).toMatchObject({ done: false, refused, message: expect.stringContaining(message) });
  });

  test('to stop an executor that is dead already is refused as such, wherever it ran', async () => {
    const { executor, preview } = await createDesk();
    await executor.die();
    expect(await preview('executor_stop_and_rescue', 'worker')).toMatchObject({
      refused: 'impossible',
      message: 'worker is dead already: executor_rescue gives its attempts back',
    });
  });

  test("tells of pg-boss's own traps: a stately sibling makes a failure final, and so it is", async () => {
    const { boss, begin, executor, preview, execute, state } = await createDesk({ queues: [{ name: 'mail', policy: 'stately' }] });
    const [first = ''] = await begin();
    await boss.fail('mail', { id: first, retryCount: 0 });
    const [again] = await executor.fetch('mail');
    expect(again?.id).toBe(first);
    const sibling = await boss.send('mail', {});
    await executor.boss.fail('mail', { id: first, retryCount: 1 });
    // One waits for its retry; the other is taken, and its executor dies.
    const [taken] = await executor.fetch('mail');
    const [waiting, active] = taken?.id === first ? [sibling, first] : [first, sibling];
    await boss.getDb().executeSql(`UPDATE pgboss.job SET state = 'retry', started_on = now() WHERE id = '${waiting}'`);
    await executor.die();
    const plan = previewed(await preview('job_rescue', `mail/${active}`, { policy: 'fail' }));
    expect(plan.plan.jobs).toMatchObject([{ after: 'failed', warnings: expect.arrayContaining([expect.stringContaining('stately')]) }]);
    expect(await execute(plan.token)).toMatchObject({ done: true });
    expect(await state(active ?? '')).toBe('failed');
  });
});

describe('a token', () => {
  test.each([2, 10])('executed %i times at once has one effect', async (times) => {
    const { begin, executor, preview, execute, audit, database } = await createDesk();
    const [id = ''] = await begin();
    await executor.die();
    const { token } = previewed(await preview('job_rescue', `mail/${id}`, { policy: 'restart' }));
    const results = await Promise.all(Array.from({ length: times }, () => execute(token)));
    expect(results.filter(({ done }) => done)).toHaveLength(1);
    expect(results.filter((result) => !result.done && result.refused === 'used')).toHaveLength(times - 1);
    expect(await database.query('SELECT FROM recovery')).toHaveLength(1);
    expect((await audit()).filter(({ outcome }) => outcome === 'done')).toHaveLength(1);
    expect((await audit()).filter(({ outcome }) => outcome === 'denied')).toHaveLength(times - 1);
  });

  test('in a dry run nothing is executed, and the token is still good', async () => {
    const { url, boss, preview, execute, state, audit } = await createDesk();
    const id = (await boss.send('mail', {})) ?? '';
    const { token } = previewed(await preview('job_cancel', `mail/${id}`));
    const dry = await openTestContext(url, { RECLAIMD_DRY_RUN: 'true' });
    expect(await executeRepair(dry.repairDependencies(), { token, actor: ANN, reason: REASON })).toMatchObject({
      refused: 'dry_run',
      message: expect.stringContaining('RECLAIMD_DRY_RUN is set: nothing is executed'),
    });
    expect(await state(id)).toBe('created');
    expect(await audit()).toEqual([]);
    expect(await execute(token)).toMatchObject({ done: true });
  });

  test("unknown, expired, somebody else's, or without a reason: refused, and nothing is done", async () => {
    const { boss, preview, execute, state, audit, database } = await createDesk();
    const id = (await boss.send('mail', {})) ?? '';
    const { token } = previewed(await preview('job_cancel', `mail/${id}`));
    expect(await execute('no-token')).toMatchObject({ refused: 'unknown' });
    expect(await execute('00000000-0000-0000-0000-000000000000')).toMatchObject({ refused: 'unknown' });
    expect(await execute(token, { actor: 'bob@desk', reason: 'for\0 fun' })).toMatchObject({ refused: 'foreign' });
    for (const reason of ['  short  ', '\u200B'.repeat(20)]) expect(await execute(token, { reason })).toMatchObject({ refused: 'reason' });
    await database.query(`UPDATE repair_preview SET expires_at = now() - interval '1 second'`);
    expect(await execute(token)).toMatchObject({ refused: 'expired' });
    expect(await database.query('SELECT status FROM repair_preview')).toEqual([{ status: 'expired' }]);
    expect(await state(id)).toBe('created');
    expect((await audit()).map(({ actor, target, outcome, reason }) => `${actor} ${target} ${outcome}: ${reason}`)).toEqual([
      `${ANN} an unknown token denied: ${REASON}`,
      `${ANN} an unknown token denied: ${REASON}`,
      `bob@desk mail/${id} denied: for fun`,
      `${ANN} mail/${id} expired: ${REASON}`,
    ]);
  });

  test.each<[string, string, string]>([
    ['job_rescue', 'active', 'retry'],
    ['job_discard', 'active', 'failed'],
    ['executor_rescue', 'active', 'retry'],
    ['job_retry', 'failed', 'retry'],
    ['job_retry', 'cancelled', 'created'],
    ['job_cancel', 'created', 'cancelled'],
    ['job_cancel', 'active', 'cancelled'],
  ])('crash at every statement of %s of what is %s: all of it or nothing', async (action, was, becomes) => {
    const { boss, begin, executor, preview, execute, dependencies, database } = await createDesk();
    const ids = was === 'created' ? [await boss.send('mail', {}), await boss.send('mail', {})] : await begin(2);
    if (was === 'failed') await database.query(`UPDATE job SET retry_limit = 0`);
    for (const id of ids) {
      if (was === 'failed') await boss.fail('mail', id ?? '');
      if (was === 'cancelled') await boss.cancel('mail', id ?? '');
    }
    await executor.die();
    const states = async () => (await database.query<{ state: string }>('SELECT DISTINCT state::text FROM job')).map(({ state }) => state);
    expect(await states()).toEqual([was]);
    const targets = action === 'executor_rescue' ? 'worker' : ids.map((id) => `mail/${id}`);
    const { token } = previewed(await preview(action, targets));
    let statements = 0;
    for (let failing = 1; ; failing++) {
      statements = 0;
      const broken = failAt(dependencies.database, () => ++statements === failing);
      const attempt = executeRepair({ ...dependencies, database: broken } as RepairDependencies, { token, actor: ANN, reason: REASON });
      if (
        await attempt.then(
          () => true,
          () => false,
        )
      )
        break;
      expect(await states()).toEqual([was]);
      expect(await database.query('SELECT FROM recovery')).toEqual([]);
      expect(await database.query('SELECT status FROM repair_preview')).toEqual([{ status: 'ready' }]);
      expect(await database.query(`SELECT FROM audit WHERE outcome <> 'failed'`)).toEqual([]);
    }
    expect(statements).toBeGreaterThan(7);
    expect(await states()).toEqual([becomes]);
    expect(await execute(token)).toMatchObject({ refused: 'used' });
  });

  test('the connection breaks after some statement of an execution, its COMMIT too: one record, and the answer, say what was done', {
    timeout: 180_000,
  }, async () => {
    const { url, boss, begin, preview, state, audit } = await createDesk();
    const proxy = await createBreakingProxy(url);
    const dependencies = (await openTestContext(proxy.url)).repairDependencies();
    let wasBroken = true;
    const answers: string[] = [];
    const mending = setInterval(() => {
      if (!proxy.isBroken()) return;
      wasBroken = true;
      proxy.mend();
    }, 20);
    onTestFinished(() => clearInterval(mending));
    for (let statement = 1; wasBroken; statement++) {
      await boss.deleteAllJobs('mail');
      const [id = ''] = await begin();
      const { token } = previewed(await preview('job_cancel', `mail/${id}`));
      const before = (await audit()).length;
      await waitFor('a connection', () =>
        dependencies.database.query('SELECT 1').then(
          () => true,
          () => false,
        ),
      );
      wasBroken = false;
      proxy.breakAt(statement, 'after');
      const answer = await executeRepair(dependencies, { token, actor: ANN, reason: REASON }).catch(() => 'a fault');
      wasBroken ||= proxy.isBroken();
      proxy.mend();
      const said = (await audit()).slice(before).map(({ outcome }) => outcome);
      if (answer === 'a fault') {
        expect(await state(id), `statement ${statement}`).toBe('active');
        expect(['', 'failed'], `statement ${statement}`).toContain(said.join());
      } else {
        expect(answer, `statement ${statement}`).toMatchObject({
          done: true,
          partial: false,
          targets: [{ outcome: 'done', state: 'cancelled' }],
        });
        expect(await state(id), `statement ${statement}`).toBe('cancelled');
        expect(said, `statement ${statement}`).toEqual(['done']);
      }
      answers.push(`${wasBroken ? 'broken' : 'whole'}: ${answer === 'a fault' ? answer : 'done'}`);
    }
    expect(new Set(answers)).toEqual(new Set(['broken: a fault', 'broken: done', 'whole: done']));
  });

  test('is in no audit record, whatever became of it; the number that is leads to the preview', async () => {
    const { boss, preview, execute, audit, database } = await createDesk();
    const id = (await boss.send('mail', {})) ?? '';
    const { token, number } = previewed(await preview('job_cancel', `mail/${id}`));
    const unused = '00000000-0000-4000-8000-000000000000';
    await execute(unused);
    await execute(token, { actor: 'bob@desk' });
    await database.query('ALTER TABLE audit ADD CONSTRAINT closed CHECK (outcome <> $$done$$)');
    await expect(execute(token)).rejects.toThrow('closed');
    await database.query('ALTER TABLE audit DROP CONSTRAINT closed');
    await execute(token);
    await execute(token);
    const drifting = previewed(await preview('job_retry', `mail/${id}`));
    await boss.deleteJob('mail', id);
    await execute(drifting.token);
    const events = await audit();
    expect(events.map(({ outcome, detail }) => `${outcome} ${detail['preview']}`)).toEqual([
      'denied undefined',
      `denied ${number}`,
      `failed ${number}`,
      `done ${number}`,
      `denied ${number}`,
      `drifted ${drifting.number}`,
    ]);
    for (const secret of [token, drifting.token, unused]) expect(JSON.stringify(events)).not.toContain(secret);
    expect(await database.query('SELECT token::text, actor FROM repair_preview WHERE number = $1', [number])).toEqual([
      { token, actor: ANN },
    ]);
  });
});

describe('an actor', () => {
  const onlyMail: HostAuthorize = (actor, _, resource) => actor === ANN && resource.kind === 'queue' && resource.name === 'mail';

  test('without the right sees the plan and gets no token; with it on another queue only, neither', async () => {
    const { boss, preview, audit } = await createDesk({ queues: [{ name: 'mail' }, { name: 'pay' }] }, onlyMail);
    const [mail, pay] = [await boss.send('mail', {}), await boss.send('pay', {})];
    expect(await preview('job_cancel', `mail/${mail}`)).toMatchObject({ token: expect.any(String), denial: null });
    expect(await preview('job_cancel', `pay/${pay}`)).toMatchObject({ done: true, token: null, denial: expect.any(String) });
    expect(await preview('job_cancel', [`mail/${mail}`, `pay/${pay}`])).toMatchObject({ token: null });
    expect(await preview('job_cancel', `mail/${mail}`, { actor: 'bob@desk' })).toMatchObject({ token: null });
    expect((await audit()).map(({ actor, action, target, outcome }) => [actor, action, target, outcome])).toEqual([
      [ANN, 'job_cancel', `pay/${pay}`, 'denied'],
      [ANN, 'job_cancel', 'several queues', 'denied'],
      ['bob@desk', 'job_cancel', `mail/${mail}`, 'denied'],
    ]);
  });

  test('who has lost the right meanwhile is denied, and that is audited', async () => {
    let may = true;
    const { boss, preview, execute, state, audit } = await createDesk(undefined, () => may);
    const id = (await boss.send('mail', {})) ?? '';
    const { token } = previewed(await preview('job_cancel', `mail/${id}`));
    may = false;
    expect(await execute(token)).toMatchObject({ refused: 'denied' });
    expect(await state(id)).toBe('created');
    expect(await audit()).toMatchObject([{ actor: ANN, action: 'job_cancel', outcome: 'denied', reason: REASON }]);
  });
});
