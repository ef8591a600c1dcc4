import { expect, test } from 'vitest';
import { nameAttempt } from '../../src/actions/job-store.ts';
import { saveCommand } from '../../src/commands/queries.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { awaitGivenBack } from '../../src/repairs/given-back.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';

/** Four attempts of an executor that is dead, held once, a moment before: and a clock by which each look is six seconds after the other. */
async function setUp() {
  const { url, database, boss } = await createFleetDatabase({ queues: [{ name: 'pay' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(url, database, 'worker');
  await boss.insert('pay', [{}, {}, {}, {}]);
  const attempts = (await executor.fetch('pay', 4)).map(({ id, retryCount }) => ({ queue: 'pay', jobId: id, retryCount }));
  await executor.die();
  await database.query(
    `INSERT INTO recovery (queue, job_id, retry_count, executor_id, verdict, policy, policy_source, outcome, reason, node)
     SELECT 'pay', job_id, 0, 'worker', 'missing', 'hold', 'default', 'held', 'silent', 'far' FROM unnest($1::uuid[]) AS a(job_id)`,
    [attempts.map(({ jobId }) => jobId)],
  );
  const context = await openTestContext(url);
  let seconds = 0;
  const wait = (onLook: () => Promise<unknown>) => {
    const sleep = async () => {
      seconds += 6;
      await onLook();
    };
    return awaitGivenBack({ database, jobs: context.jobs, clock: { now: () => 1_000 * seconds, sleep } }, 'worker');
  };
  const name = (policy: 'fail' | 'hold') =>
    database.transaction(async (tx) => {
      const named = { policy, attempts: attempts.map(nameAttempt) };
      const asked = { node: 'far', action: 'unit_stop', unit: 'app.service', actor: 'ann@desk', reason: null, expected: null } as const;
      const id = await saveCommand(tx, { ...asked, audited: null, executor: 'worker', named }, 10);
      await tx.query('UPDATE node_command SET begun_at = now() WHERE id = $1', [id]);
    });
  return { database, boss, attempts, wait, name };
}

test('what was held before is waited for once another policy is named for it, for as long as it goes on', async () => {
  const { boss, attempts, wait, name } = await setUp();
  await name('fail');
  const left = [...attempts];
  const end = () => {
    const attempt = left.pop();
    return attempt ? boss.complete('pay', { id: attempt.jobId, retryCount: 0 }) : Promise.resolve();
  };
  expect(await wait(end)).toEqual({ outcome: 'done', error: 'dead, holds no attempt any more' });
  expect(left).toEqual([]);
});

test('what does not go on for ten seconds has failed', async () => {
  const { wait, name } = await setUp();
  await name('fail');
  let looks = 0;
  const result = await wait(async () => {
    looks += 1;
  });
  expect(result).toMatchObject({ outcome: 'failed', error: expect.stringContaining('4 of its attempts are not back') });
  expect(looks).toBe(2);
});

test.each(['hold', undefined] as const)('what is held is not waited for (named: %s)', async (policy) => {
  const { wait, name } = await setUp();
  if (policy) await name(policy);
  const result = await wait(() => Promise.reject(new Error('there is nothing to wait for')));
  expect(result).toMatchObject({ outcome: 'partial', error: expect.stringContaining('its policy holds 4 of its attempts') });
});
