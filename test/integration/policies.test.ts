import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { resolveReleasedHolds } from '../../src/recovery/holds.ts';
import { savePolicy } from '../../src/recovery/policy-table.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { type BossOptions, createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext, sweepOnce } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';
import { wokenBy } from '../support/woken.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

async function createFleet(queue: NonNullable<BossOptions['queues']>[number], extra: NonNullable<BossOptions['queues']> = []) {
  const fleet = await createFleetDatabase({ queues: [...extra, queue] });
  await installOwnership(fleet.database, TARGET);
  const executor = await createExecutor(fleet.url, fleet.database, 'worker-1');
  const stateOf = async (id: string | null) => {
    const [job] = await fleet.database.query<{ state: string; retryCount: number; retryLimit: number; delayed: boolean }>(
      `SELECT state::text, retry_count AS "retryCount", retry_limit AS "retryLimit", start_after > now() AS delayed FROM job WHERE name = $1 AND id = $2`,
      [queue.name, id],
    );
    return job;
  };
  return { ...fleet, executor, stateOf };
}

test('fail leaves it to pg-boss: retries left, backoff, none left, dead letter', async () => {
  const { url, boss, executor, stateOf, database } = await createFleet(
    { name: 'work', retryLimit: 2, retryDelay: 60, deadLetter: 'dead' },
    [{ name: 'dead' }],
  );
  const patient = await boss.send('work', {});
  const last = await boss.send('work', {}, { retryLimit: 0 });
  await executor.fetch('work', 2);
  await executor.die();
  expect(await sweepOnce(url)).toMatchObject({ failed: 2, restarted: 0, discarded: 0, held: 0, skipped: 0 });
  expect(await stateOf(patient)).toMatchObject({ state: 'retry', retryCount: 0, delayed: true });
  expect(await stateOf(last)).toMatchObject({ state: 'failed' });
  expect(await database.query(`SELECT FROM job WHERE name = 'dead'`)).toHaveLength(1);
});

test('restart runs again without spending the retry budget, even with none left', async () => {
  const { url, boss, executor, stateOf } = await createFleet({ name: 'work', retryLimit: 0 });
  const id = await boss.send('work', {});
  await executor.fetch('work');
  await executor.die();
  expect(await sweepOnce(url, { RECLAIMD_POLICY: 'restart' })).toMatchObject({ restarted: 1 });
  expect(await stateOf(id)).toMatchObject({ state: 'retry', retryLimit: 1 });
  const [again] = (await boss.fetch('work', { includeMetadata: true })) ?? [];
  expect(again).toMatchObject({ id, retryCount: 1, retryLimit: 1 });
});

test('discard ends the job whatever retries it has, through the dead letter queue', async () => {
  const { url, boss, executor, stateOf, database } = await createFleet({ name: 'work', retryLimit: 5, deadLetter: 'dead' }, [
    { name: 'dead' },
  ]);
  const id = await boss.send('work', { amount: 1 });
  await executor.fetch('work');
  await executor.die();
  expect(await sweepOnce(url, { RECLAIMD_POLICY: 'discard' })).toMatchObject({ discarded: 1 });
  expect(await stateOf(id)).toMatchObject({ state: 'failed' });
  expect(await database.query(`SELECT data FROM job WHERE name = 'dead'`)).toEqual([{ data: { amount: 1 } }]);
});

test('hold leaves the job as it is and opens one incident, which ends with the attempt', async () => {
  const { url, boss, executor, stateOf, database } = await createFleet({ name: 'work' });
  const id = await boss.send('work', {});
  await executor.fetch('work');
  await executor.die();
  expect(await sweepOnce(url, { RECLAIMD_POLICY: 'hold' })).toMatchObject({ held: 1 });
  expect(await sweepOnce(url, { RECLAIMD_POLICY: 'hold' })).toMatchObject({ held: 0, skipped: 1 });
  expect(await stateOf(id)).toMatchObject({ state: 'active' });
  expect(await database.query('SELECT class, resolved_at FROM incident')).toEqual([{ class: 'held_orphan', resolved_at: null }]);
  const { jobs } = await openTestContext(url);
  await resolveReleasedHolds(database, jobs);
  expect(await database.query('SELECT FROM incident WHERE resolved_at IS NULL')).toHaveLength(1);
  await boss.complete('work', id ?? '');
  await resolveReleasedHolds(database, jobs);
  expect(await database.query('SELECT FROM incident WHERE resolved_at IS NULL')).toHaveLength(0);
});

test('the order is: function, configured list, table, default; the first match wins', async () => {
  const { url, boss, executor, database } = await createFleet({ name: 'd-default' }, [
    { name: 'a-function' },
    { name: 'b-configured' },
    { name: 'c-table' },
  ]);
  const queues = ['a-function', 'b-configured', 'c-table', 'd-default'];
  for (const queue of queues) {
    await boss.send(queue, {});
    await executor.fetch(queue);
  }
  await savePolicy(database, { queue: '*-*', policy: 'hold' }, 'test');
  await savePolicy(database, { queue: 'c-*', policy: 'restart' }, 'test');
  await savePolicy(database, { queue: 'd-default', policy: 'fail' }, 'test');
  await executor.die();
  const { recovered } = await sweepOnce(
    url,
    { RECLAIMD_POLICIES: 'a-*=hold,b-*=discard,b-configured=restart' },
    { resolvePolicy: ({ queue }) => (queue === 'a-function' ? 'restart' : undefined) },
  );
  const policies = Object.fromEntries(recovered.map(({ queue, policy, resolved }) => [queue, `${policy} by ${resolved.source}`]));
  expect(policies).toEqual({
    'a-function': 'restart by function',
    'b-configured': 'discard by configured',
    'c-table': 'restart by table',
    'd-default': 'fail by table',
  });
});

test('a policy function that throws or answers nonsense is counted, and the lists decide', async () => {
  const { url, boss, executor } = await createFleet({ name: 'work' });
  await boss.insert('work', [{}, {}]);
  await executor.fetch('work', 2);
  await executor.die();
  const errors: unknown[] = [];
  let calls = 0;
  const resolvePolicy = () => {
    calls += 1;
    if (calls === 1) throw new Error('no answer');
    return 'explode' as 'hold';
  };
  expect(await sweepOnce(url, { RECLAIMD_POLICY: 'hold' }, { resolvePolicy, onPolicyError: (error) => errors.push(error) })).toMatchObject({
    held: 2,
  });
  expect(errors.map(String)).toEqual([expect.stringContaining('no answer'), expect.stringContaining('"explode"')]);
});

test('a job that keeps killing its workers is poison: ended after max recoveries, with an incident', async () => {
  const { url, boss, database } = await createFleet({ name: 'work', retryLimit: 100, deadLetter: 'dead' }, [{ name: 'dead' }]);
  const id = await boss.send('work', {});
  for (let life = 1; life <= 3; life++) {
    const executor = await createExecutor(url, database, `victim-${life}`);
    expect(await executor.fetch('work')).toHaveLength(1);
    await executor.die();
    const report = await sweepOnce(url, { RECLAIMD_MAX_RECOVERIES: '2' });
    expect(report).toMatchObject(life <= 2 ? { failed: 1, discarded: 0 } : { failed: 0, discarded: 1 });
  }
  expect(await database.query(`SELECT source_id FROM job WHERE name = 'dead'`)).toEqual([{ source_id: id }]);
  expect(await database.query('SELECT class, fingerprint FROM incident')).toEqual([
    { class: 'poison_job', fingerprint: `poison_job:work/${id}` },
  ]);
});

test('poison may be held instead', async () => {
  const { url, boss, executor, stateOf } = await createFleet({ name: 'work' });
  const id = await boss.send('work', {});
  await executor.fetch('work');
  await executor.die();
  expect(await sweepOnce(url, { RECLAIMD_MAX_RECOVERIES: '0', RECLAIMD_POISON: 'hold' })).toMatchObject({ held: 1 });
  expect(await stateOf(id)).toMatchObject({ state: 'active' });
});

test.each(['standard', 'short', 'singleton', 'stately', 'exclusive', 'key_strict_fifo'] as const)(
  '%s queues: fail and restart both give the job back',
  async (policy) => {
    for (const action of ['fail', 'restart']) {
      const { url, boss, executor, stateOf } = await createFleet({ name: 'work', policy, retryLimit: 2, partition: action === 'restart' });
      const id = await boss.send('work', {}, { singletonKey: 'key' });
      expect(await executor.fetch('work')).toHaveLength(1);
      await executor.die();
      await sweepOnce(url, { RECLAIMD_POLICY: action });
      expect(await stateOf(id)).toMatchObject({ state: 'retry' });
      expect(await boss.fetch('work')).toMatchObject([{ id }]);
    }
  },
);

test('restart on a stately queue whose sibling is in retry becomes fail, so that the key is not blocked for ever', async () => {
  const { url, boss, executor, database, stateOf } = await createFleet({ name: 'work', policy: 'stately', retryLimit: 3 });
  const first = await boss.send('work', {});
  const [sibling] = await executor.fetch('work');
  await boss.fail('work', sibling?.id ?? '');
  await database.query(`UPDATE job SET start_after = now() + interval '1 hour' WHERE id = $1`, [first]);
  const second = await boss.send('work', {});
  expect(await executor.fetch('work')).toMatchObject([{ id: second }]);
  await executor.die();
  expect(await sweepOnce(url, { RECLAIMD_POLICY: 'restart' })).toMatchObject({ restarted: 0, failed: 1 });
  expect(await stateOf(first)).toMatchObject({ state: 'retry' });
  expect(await stateOf(second)).toMatchObject({ state: 'failed' });
});

test('a dry run says what it would do and touches nothing', async () => {
  const { url, boss, executor, stateOf, database } = await createFleet({ name: 'work' });
  const id = await boss.send('work', {});
  await executor.fetch('work');
  await executor.die();
  expect(await sweepOnce(url, {}, { dryRun: true })).toMatchObject({
    failed: 1,
    recovered: [{ jobId: id, outcome: 'failed', executorId: 'worker-1' }],
  });
  expect(await stateOf(id)).toMatchObject({ state: 'active' });
  expect(await database.query('SELECT FROM recovery')).toHaveLength(0);
  expect(await sweepOnce(url, { RECLAIMD_POLICY: 'hold' }, { dryRun: true })).toMatchObject({ held: 1 });
  expect(await database.query('SELECT FROM incident')).toHaveLength(0);
});

test('scope: env strictly equal, stack equal or none', async () => {
  const { url, boss, database } = await createFleet({ name: 'work' });
  const expectations = [
    [{ env: 'prod' }, {}, 0],
    [{}, { RECLAIMD_ENV: 'prod' }, 0],
    [{ env: 'prod' }, { RECLAIMD_ENV: 'prod' }, 1],
    [{}, {}, 1],
    [{ stack: 'a' }, {}, 0],
    [{ stack: 'a' }, { RECLAIMD_STACK: 'b' }, 0],
    [{ stack: 'a' }, { RECLAIMD_STACK: 'a' }, 1],
    [{}, { RECLAIMD_STACK: 'a' }, 1],
  ] as const;
  for (const [index, [scope, env, expected]] of expectations.entries()) {
    const executor = await createExecutor(url, database, `scoped-${index}`, scope);
    await boss.send('work', {});
    const [job] = await executor.fetch('work');
    await executor.die();
    const { recovered } = await sweepOnce(url, { RECLAIMD_POLICY: 'discard', ...env });
    expect(
      recovered.filter(({ executorId }) => executorId === `scoped-${index}`),
      JSON.stringify([scope, env]),
    ).toHaveLength(expected);
    await boss.deleteJob('work', job?.id ?? '');
  }
});

test('a stopped executor leaves nothing to do; what it left all the same is an orphan', async () => {
  const { url, boss, executor, database } = await createFleet({ name: 'work' });
  await boss.send('work', {});
  await executor.fetch('work');
  await database.query('UPDATE executor SET stopped_at = now()');
  expect(await sweepOnce(url)).toMatchObject({ failed: 1, recovered: [{ verdict: 'stopped' }] });
});

test('workers of a notify-enabled queue are woken by a rescue', async () => {
  const { url, boss, executor } = await createFleet({ name: 'work', notify: true });
  await boss.send('work', {});
  await executor.fetch('work');
  await executor.die();
  expect(await wokenBy(url, () => sweepOnce(url))).toEqual(['work']);
});

test('a queue that was made anew in a table of its own: what pg-boss has not failed is not recorded, and the next sweep does it', async () => {
  const { url, boss, database } = await createFleet({ name: 'work', retryLimit: 5 });
  const context = await openTestContext(url);
  await context.probePgBoss();
  const dependencies = context.sweepDependencies(null, false);
  await boss.deleteQueue('work');
  await boss.createQueue('work', { retryLimit: 5, partition: true });
  await installOwnership(database, TARGET);
  await boss.send('work', {});
  const executor = await createExecutor(url, database, 'worker-2');
  await executor.fetch('work');
  await executor.die();
  await expect(sweep(dependencies)).rejects.toThrow('pg-boss failed 0 of 1 attempts of work');
  const recorded = () => database.query('SELECT outcome FROM recovery');
  expect(await recorded()).toEqual([]);
  expect(await database.query('SELECT state::text, retry_limit FROM job')).toEqual([{ state: 'active', retry_limit: 5 }]);
  await waitFor('a sweep that does it', () =>
    sweep(dependencies).then(
      ({ failed }) => failed === 1,
      () => false,
    ),
  );
  expect(await recorded()).toEqual([{ outcome: 'failed' }]);
  expect(await database.query('SELECT state::text, retry_limit FROM job')).toEqual([{ state: 'retry', retry_limit: 5 }]);
});

test('attempts of queues that the client does not know yet are given back with as few connections as there may be', async () => {
  const { url, boss, executor } = await createFleet({ name: 'old' });
  const context = await openTestContext(url, { RECLAIMD_POOL_MAX: '2' });
  await context.probePgBoss();
  const names = ['new-1', 'new-2', 'new-3', 'new-4'];
  for (const name of names) {
    await boss.createQueue(name);
    await boss.send(name, {});
  }
  for (const name of names) await executor.fetch(name);
  await executor.die();
  expect(await sweep(context.sweepDependencies(null, false))).toMatchObject({ failed: 4 });
});
