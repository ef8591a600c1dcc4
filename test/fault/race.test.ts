import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { asPgBossDb } from '../../src/pgboss/client.ts';
import type { Database } from '../../src/postgres/database.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { completeAttempt } from '../support/complete.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

async function createRace(jobs: number) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
  await installOwnership(fleet.database, TARGET);
  const executor = await createExecutor(fleet.url, fleet.database, 'worker-1');
  await fleet.boss.insert(
    'work',
    Array.from({ length: jobs }, () => ({})),
  );
  const attempts = await executor.fetch('work', jobs);
  expect(attempts).toHaveLength(jobs);
  return { ...fleet, executor, attempts };
}

const statesOf = (database: Database) =>
  database.query<{ id: string; state: string; retryCount: number; output: unknown }>(
    `SELECT id, state::text, retry_count AS "retryCount", output FROM job WHERE name = 'work'`,
  );

for (const [policy, outcome] of [
  ['fail', 'failed'],
  ['restart', 'restarted'],
] as const) {
  test(`400 workers that finish in the moment of their rescue by two sweepers: the result stands or the rescue does (${policy})`, async () => {
    const { url, boss, database, executor, attempts } = await createRace(400);
    await executor.die();
    const env = { RECLAIMD_POLICY: policy, RECLAIMD_BATCH: '4' };
    const sweepers = await Promise.all(['a', 'b'].map((node) => openTestContext(url, { ...env, RECLAIMD_NODE: node })));
    const finished = new Set<string>();
    const finish = async (lane: number) => {
      for (const attempt of attempts.filter((_, index) => index % 2 === lane))
        if (await completeAttempt(executor.boss, 'work', attempt, { by: 'worker-1' })) finished.add(attempt.id);
    };
    const [reports] = await Promise.all([
      Promise.all(sweepers.map((context) => sweep(context.sweepDependencies(null, false)))),
      finish(0),
      finish(1),
    ]);

    const recoveries = await database.query<{ id: string; outcome: string }>('SELECT job_id AS id, outcome FROM recovery');
    const rescued = new Set(recoveries.map(({ id }) => id));
    expect(rescued.size, 'no job is rescued twice').toBe(recoveries.length);
    expect(
      reports.reduce((sum, report) => sum + report[outcome], 0),
      'what the sweeps say is what they did',
    ).toBe(recoveries.length);
    expect(
      [...finished].filter((id) => rescued.has(id)),
      'never both',
    ).toEqual([]);
    expect(finished.size + rescued.size, 'always one of the two').toBe(400);
    expect(Math.min(finished.size, rescued.size), `a race that both can win: ${finished.size} to ${rescued.size}`).toBeGreaterThan(10);
    for (const { id, state, output } of await statesOf(database)) {
      expect(state).toBe(finished.has(id) ? 'completed' : 'retry');
      if (finished.has(id)) expect(output).toEqual({ by: 'worker-1' });
    }

    const second = await boss.fetch('work', { batchSize: 400, includeMetadata: true });
    expect(new Set(second?.map(({ id }) => id))).toEqual(rescued);
    for (const attempt of attempts)
      expect(await completeAttempt(executor.boss, 'work', attempt, { by: 'too late' }), 'the first attempt is over for good').toBe(false);
    for (const attempt of second ?? []) expect(await completeAttempt(boss, 'work', attempt, { by: 'worker-2' })).toBe(true);
    const ended = await statesOf(database);
    expect(ended).toHaveLength(400);
    for (const { id, state, retryCount, output } of ended)
      expect({ state, retryCount, output }).toEqual({
        state: 'completed',
        retryCount: rescued.has(id) ? 1 : 0,
        output: { by: rescued.has(id) ? 'worker-2' : 'worker-1' },
      });
  });
}

test('a completion that has not committed yet is not waited for, and stands', async () => {
  const { url, database, executor, attempts } = await createRace(2);
  await executor.die();
  const context = await openTestContext(url);
  const [first, other] = attempts;
  await database.transaction(async (tx) => {
    await completeAttempt(executor.boss, 'work', { id: first?.id ?? '', retryCount: 0 }, null, { db: asPgBossDb(tx) });
    expect(await sweep(context.sweepDependencies(null, false))).toMatchObject({ failed: 1, skipped: 1 });
  });
  const states = new Map((await statesOf(database)).map(({ id, state }) => [id, state]));
  expect(states.get(first?.id ?? '')).toBe('completed');
  expect(states.get(other?.id ?? '')).toBe('retry');
  expect(await sweep(context.sweepDependencies(null, false))).toMatchObject({ failed: 0, skipped: 0 });
});

test('a completion that meets a rescue under way waits for it, and changes nothing', async () => {
  const { url, database, executor, attempts } = await createRace(1);
  await executor.die();
  const context = await openTestContext(url);
  const attempt = { id: attempts[0]?.id ?? '', retryCount: 0 };
  const dependencies = context.sweepDependencies(null, false);
  let completion: Promise<boolean> | undefined;
  const gateway: typeof dependencies.gateway = {
    rescue: async (tx, queue, nominations) => {
      const result = await dependencies.gateway.rescue(tx, queue, nominations);
      completion = completeAttempt(executor.boss, 'work', attempt);
      const waiting = `SELECT FROM pg_stat_activity WHERE application_name = 'pgboss:worker-1' AND wait_event_type = 'Lock'`;
      await expect.poll(() => database.query(waiting), { timeout: 10_000 }).toHaveLength(1);
      return result;
    },
  };
  expect(await sweep({ ...dependencies, gateway })).toMatchObject({ failed: 1 });
  expect(await completion).toBe(false);
  expect(await statesOf(database)).toMatchObject([{ state: 'retry' }]);
});
