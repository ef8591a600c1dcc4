import type { PgBoss } from 'pg-boss';
import { describe, expect, test } from 'vitest';
import { executeRepair } from '../../src/repairs/execute.ts';
import type { RepairDependencies } from '../../src/repairs/preview.ts';
import { ANN, beforeStatements, createDesk, type FleetOptions, previewed, REASON } from '../support/repairs.ts';

describe('one job that cannot be done keeps no other from being done', () => {
  const short: FleetOptions = { queues: [{ name: 'mail', policy: 'short' }, { name: 'plain' }] };

  async function cancelled(boss: PgBoss, queue: string): Promise<string> {
    const id = (await boss.send(queue, {})) ?? '';
    await boss.cancel(queue, id);
    return id;
  }

  test('its place is taken at preview: it is left out, with who has it', async () => {
    const { boss, preview, execute, state } = await createDesk(short);
    const [first, plain] = [await cancelled(boss, 'mail'), await cancelled(boss, 'plain')];
    const holder = await boss.send('mail', {});
    const shown = previewed(await preview('job_retry', [`mail/${first}`, `plain/${plain}`]));
    expect(shown.plan.leftOut).toEqual([{ target: `mail/${first}`, why: expect.stringContaining(`mail/${holder} has the only place`) }]);
    expect(await execute(shown.token)).toMatchObject({ done: true, targets: [{ target: `plain/${plain}`, state: 'created' }] });
    expect(await state(first)).toBe('cancelled');
  });

  test('its place was taken since: that is its drift', async () => {
    const { boss, preview, execute, state } = await createDesk(short);
    const [first, plain] = [await cancelled(boss, 'mail'), await cancelled(boss, 'plain')];
    const { token } = previewed(await preview('job_retry', [`mail/${first}`, `plain/${plain}`]));
    const holder = await boss.send('mail', {});
    expect(await execute(token)).toMatchObject({
      partial: true,
      targets: [
        { target: `plain/${plain}`, outcome: 'done' },
        { target: `mail/${first}`, outcome: 'drifted', drift: `who has its place was none, is mail/${holder}` },
      ],
    });
    expect([await state(first), await state(plain, 'plain')]).toEqual(['cancelled', 'created']);
  });

  test('its place is taken at the last moment, or by another of the same repair: it failed, and says why', async () => {
    const { boss, preview, dependencies, audit, database } = await createDesk(short);
    const ids = [await cancelled(boss, 'mail'), await cancelled(boss, 'mail')];
    const plain = await cancelled(boss, 'plain');
    const { token } = previewed(await preview('job_retry', [...ids.map((id) => `mail/${id}`), `plain/${plain}`]));
    const result = await executeRepair(dependencies, { token, actor: ANN, reason: REASON });
    const targets = result.done ? result.targets : [];
    expect(result).toMatchObject({ done: true, partial: true });
    expect(targets.map(({ outcome }) => outcome).toSorted()).toEqual(['done', 'done', 'failed']);
    const error = 'another job has the only place that its queue leaves for it';
    expect(targets).toContainEqual({ target: expect.stringContaining('mail/'), outcome: 'failed', error });
    expect(await database.query(`SELECT FROM job WHERE state = 'created'`)).toHaveLength(2);
    expect(await audit()).toMatchObject([{ outcome: 'partial', detail: { effects: [{}, {}], failed: [{ error }] } }]);
    // The only one that is asked for.
    await database.query(`DELETE FROM job WHERE state = 'created'`);
    const [alone] = await database.query<{ id: string }>(`SELECT id FROM job WHERE state = 'cancelled'`);
    const again = previewed(await preview('job_retry', `mail/${alone?.id}`));
    let sent: string | null | undefined;
    const racing = beforeStatements(dependencies.database, async (text) => {
      if (sent === undefined && text === 'SAVEPOINT change') sent = await boss.send('mail', {});
    });
    expect(
      await executeRepair({ ...dependencies, database: racing } as RepairDependencies, { token: again.token, actor: ANN, reason: REASON }),
    ).toMatchObject({ done: true, partial: true, targets: [{ outcome: 'failed', error }] });
    expect((await audit()).at(-1)).toMatchObject({ outcome: 'failed', detail: { effects: [], failed: [{ error }] } });
  });

  test.each([
    ['short', 'failed', false],
    ['short', 'cancelled', true],
    ['singleton', 'failed', false],
    ['singleton', 'cancelled', false],
    ['stately', 'failed', false],
    ['stately', 'cancelled', true],
    ['exclusive', 'failed', true],
    ['exclusive', 'cancelled', true],
    ['standard', 'cancelled', false],
  ] as const)('the preview knows when pg-boss itself has no place: %s, %s while another waits: %s', async (policy, was, taken) => {
    const { boss, preview, database } = await createDesk({ queues: [{ name: 'mail', policy, retryLimit: 0 }] });
    const id = (await boss.send('mail', {}, { singletonKey: 'k' })) ?? '';
    if (was === 'failed') {
      await boss.fetch('mail');
      await boss.fail('mail', id);
    } else await boss.cancel('mail', id);
    const holder = await boss.send('mail', {}, { singletonKey: 'k' });
    await boss.send('mail', {}, { singletonKey: 'another' });
    const answer = await preview('job_retry', `mail/${id}`);
    if (taken)
      expect(answer).toMatchObject({ refused: 'impossible', message: expect.stringContaining(`mail/${holder} has the only place`) });
    else expect(answer).toMatchObject({ done: true });
    const itself = was === 'failed' ? boss.retry('mail', id) : boss.resume('mail', id);
    if (taken) await expect(itself).rejects.toMatchObject({ code: '23505' });
    else await itself;
    if (policy !== 'stately' || was !== 'failed') return;
    // A sibling that waits for its retry has it.
    await database.query(`UPDATE job SET state = 'failed' WHERE id = $1`, [id]);
    await database.query(`UPDATE job SET state = 'retry', started_on = now() WHERE id = $1`, [holder]);
    expect(await preview('job_retry', `mail/${id}`)).toMatchObject({
      message: expect.stringContaining(`mail/${holder} has the only place`),
    });
    await expect(boss.retry('mail', id)).rejects.toMatchObject({ code: '23505' });
  });

  test('where the change would end otherwise than was shown, it is not made', async () => {
    const { boss, begin, executor, preview, dependencies, state, database } = await createDesk({
      queues: [{ name: 'mail', policy: 'stately' }],
    });
    const [id = ''] = await begin();
    const sibling = await boss.send('mail', {});
    await executor.die();
    const { token } = previewed(await preview('job_rescue', `mail/${id}`, { policy: 'restart' }));
    let raced = false;
    const racing = beforeStatements(dependencies.database, async (text) => {
      if (raced || text !== 'SAVEPOINT change') return;
      raced = true;
      await database.query(`UPDATE job SET state = 'retry', started_on = now() WHERE id = $1`, [sibling]);
    });
    expect(
      await executeRepair({ ...dependencies, database: racing } as RepairDependencies, { token, actor: ANN, reason: REASON }),
    ).toMatchObject({
      partial: true,
      targets: [{ outcome: 'failed', error: 'it would have been failed after the rescue, not retry' }],
    });
    expect(await state(id)).toBe('active');
    expect(await database.query('SELECT FROM recovery')).toEqual([]);
  });

  test('a throttle has one place, too', async () => {
    const { boss, preview } = await createDesk();
    const id = (await boss.send('mail', {}, { singletonSeconds: 3600 })) ?? '';
    await boss.cancel('mail', id);
    expect(await preview('job_retry', `mail/${id}`)).toMatchObject({ done: true });
    const holder = await boss.send('mail', {}, { singletonSeconds: 3600 });
    expect(await preview('job_retry', `mail/${id}`)).toMatchObject({
      message: expect.stringContaining(`mail/${holder} has the only place`),
    });
    await expect(boss.resume('mail', id)).rejects.toMatchObject({ code: '23505' });
  });
});

test('executor_rescue takes 1,000 attempts, and says how many are left', async () => {
  const { begin, executor, preview, execute, audit, database } = await createDesk();
  await begin(1003);
  await executor.die();
  const shown = previewed(await preview('executor_rescue', 'worker'));
  expect(shown.plan).toMatchObject({ left: 3 });
  expect(shown.plan.jobs).toHaveLength(1000);
  expect(await execute(shown.token)).toMatchObject({ done: true, partial: true, left: 3 });
  expect(await database.query(`SELECT FROM job WHERE state = 'active'`)).toHaveLength(3);
  const rest = previewed(await preview('executor_rescue', 'worker'));
  expect(rest.plan).toMatchObject({ left: 0 });
  expect(await execute(rest.token)).toMatchObject({ done: true, partial: false, left: 0 });
  expect(await audit()).toMatchObject([{ outcome: 'partial', detail: { left: 3 } }, { outcome: 'done' }]);
});

test('executor_rescue wants the right on the queues of those, too', async () => {
  const queues = [{ name: 'mail' }, { name: 'pay' }];
  const { begin, executor, preview } = await createDesk(
    { queues },
    (_, __, resource) => resource.kind === 'executor' && resource.queues.join() === 'mail',
  );
  await begin(1000);
  await begin(1, 'pay');
  await executor.die();
  expect(await preview('executor_rescue', 'worker')).toMatchObject({ token: null, plan: { left: 1 } });
});
