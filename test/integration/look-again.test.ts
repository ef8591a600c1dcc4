import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { Policy } from '../../src/actions/limits.ts';
import { refreshHeartbeats } from '../../src/executors/health.ts';
import type { Database } from '../../src/postgres/database.ts';
import type { ResolvePolicy } from '../../src/recovery/policy.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair } from '../../src/repairs/preview.ts';
import { anotherNodeBeats } from '../support/beat.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';
import { ANN, beforeStatements, createDesk, previewed, REASON } from '../support/repairs.ts';
import { waitFor } from '../support/wait.ts';

/** A desk whose host has a policy function, and a living executor, `other`, besides the one that is repaired. */
async function setUp(resolvePolicy?: ResolvePolicy, onPolicyError: (error: unknown) => void = () => undefined) {
  const desk = await createDesk();
  const { url, database } = desk;
  const context = await openTestContext(url, { RECLAIMD_OUTAGE_GRACE: '0s' }, resolvePolicy ? { resolvePolicy, onPolicyError } : {});
  const dependencies = context.repairDependencies();
  const other = await createExecutor(url, database, 'other');
  const impatient = desk.connect({ lockTimeoutMs: 1_000 });
  const beat = () => refreshHeartbeats(impatient, [{ executorId: 'other', applicationName: 'pgboss:other', beatSeconds: 5 }]);
  await beat();
  /** Its session is at work after the last of its signs that is known: who looks at executors takes that over. */
  const giveSign = async () => {
    await database.query(`UPDATE executor SET beat_at = now() - interval '5 s', session_at = NULL WHERE id = 'other'`);
    await other.boss.getQueues();
  };
  return {
    ...desk,
    context,
    dependencies,
    impatient,
    beat,
    giveSign,
    /** Gives that sign when a transaction is about to begin. */
    withSign: (inner: Database): Database => ({
      ...inner,
      transaction: async (work) => {
        await giveSign();
        return inner.transaction(work);
      },
    }),
    preview: (action: string, target: string) => previewRepair(dependencies, { action, targets: [target], actor: ANN }),
    execute: (token: string, database: Database = dependencies.database) =>
      executeRepair({ ...dependencies, database }, { token, actor: ANN, reason: REASON }),
  };
}

test('while a policy function has not answered, nobody waits for a preview, nor for an execution', async () => {
  let asked = 0;
  let answer = Promise.resolve();
  const world = await setUp(async (): Promise<Policy> => {
    asked += 1;
    await answer;
    return 'restart';
  });
  const { begin, executor, preview, execute, giveSign, beat, impatient, state } = world;
  const [id = ''] = await begin();
  await executor.die();
  async function untroubled<T>(act: () => Promise<T>): Promise<T> {
    let say = () => {};
    answer = new Promise((resolve) => {
      say = resolve;
    });
    await giveSign();
    const before = asked;
    const acting = act();
    try {
      await waitFor('the policy function to be asked', () => asked > before);
      await beat();
      await impatient.query('SELECT FROM job WHERE id = $1 FOR UPDATE NOWAIT', [id]);
    } finally {
      say();
    }
    return acting;
  }
  const { token } = previewed(await untroubled(() => preview('job_rescue', `mail/${id}`)));
  expect(await untroubled(() => execute(token))).toMatchObject({ done: true, targets: [{ state: 'retry' }] });
  expect(await state(id)).toBe('retry');
});

test('a policy function is asked about all jobs together, and by an execution only before it locks them', async () => {
  let [asked, underWay, most] = [0, 0, 0];
  const { begin, executor, preview, execute } = await setUp(async (): Promise<Policy> => {
    asked += 1;
    underWay += 1;
    most = Math.max(most, underWay);
    await delay(20);
    underWay -= 1;
    return 'restart';
  });
  await begin(5);
  await executor.die();
  const { token } = previewed(await preview('executor_rescue', 'worker'));
  expect([asked, most]).toEqual([5, 5]);
  most = 0;
  expect(await execute(token)).toMatchObject({ done: true, partial: false });
  expect([asked, most]).toEqual([10, 5]);
});

test('the failure of a policy function is told once for a preview, and once for an execution', async () => {
  const errors: unknown[] = [];
  const { begin, executor, preview, execute } = await setUp(
    () => {
      throw new Error('no answer');
    },
    (error) => errors.push(error),
  );
  const [id = ''] = await begin();
  await executor.die();
  const { token } = previewed(await preview('job_rescue', `mail/${id}`));
  expect(errors).toHaveLength(1);
  expect(await execute(token)).toMatchObject({ done: true, partial: false });
  expect(errors).toHaveLength(2);
});

test.each(['job_rescue', 'executor_rescue'])('an execution of %s that stands still keeps no beat waiting', async (action) => {
  const { begin, executor, preview, execute, withSign, beat, dependencies } = await setUp();
  const [id = ''] = await begin();
  await executor.die();
  const { token } = previewed(await preview(action, action === 'job_rescue' ? `mail/${id}` : 'worker'));
  let beats = 0;
  const standing = beforeStatements(dependencies.database, async (text) => {
    // It has looked, and is about to change.
    if (text === 'SAVEPOINT change') await beat().then(() => beats++);
  });
  expect(await execute(token, withSign(standing))).toMatchObject({ done: true });
  expect(beats).toBe(1);
});

test('a batch of a sweep that stands still keeps no beat waiting', async () => {
  const { begin, executor, context, withSign, beat, state, database } = await setUp();
  await anotherNodeBeats(database);
  const [id = ''] = await begin();
  await executor.boss.stop({ graceful: false });
  await executor.fallSilent(3600);
  const dependencies = context.sweepDependencies(null, false);
  let beats = 0;
  const gateway: typeof dependencies.gateway = {
    rescue: async (...batch) => {
      await beat().then(() => beats++);
      return dependencies.gateway.rescue(...batch);
    },
  };
  expect(await sweep({ ...dependencies, database: withSign(dependencies.database), gateway })).toMatchObject({ failed: 1 });
  expect([beats, await state(id)]).toEqual([1, 'retry']);
});
