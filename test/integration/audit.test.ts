import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { PermissionDenied } from '../../src/postgres/errors.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

async function createOrphans(queues: readonly string[]) {
  const fleet = await createFleetDatabase({ queues: queues.map((name) => ({ name })) });
  await installOwnership(fleet.database, TARGET);
  const executor = await createExecutor(fleet.url, fleet.database, 'worker');
  for (const queue of queues) {
    await fleet.boss.insert(queue, [{}, {}, {}]);
    await executor.fetch(queue, 3);
  }
  await executor.die();
  return fleet;
}

const listEvents = ({ database }: Awaited<ReturnType<typeof createOrphans>>) =>
  database.query<{ actor: string; action: string; target: string; outcome: string; detail: { effects: { attempts: string[] }[] } }>(
    'SELECT actor, action, target, outcome, detail FROM audit ORDER BY target, seq',
  );

test('every attempt that a sweep takes is in exactly one audit event, one event a batch', async () => {
  const fleet = await createOrphans(['a', 'b']);
  const context = await openTestContext(fleet.url, { RECLAIMD_NODE: 'here', RECLAIMD_BATCH: '2' });
  await sweep(context.sweepDependencies(null, false));
  const events = await listEvents(fleet);
  expect(events.map(({ target }) => target)).toEqual(['a', 'a', 'b', 'b']);
  expect(events[0]).toMatchObject({
    actor: 'reclaimd@here',
    action: 'sweep',
    outcome: 'done',
    detail: { effects: [{ executor: 'worker', policy: 'fail', outcome: 'failed', poison: false }] },
  });
  const audited = events.flatMap(({ target, detail }) =>
    detail.effects.flatMap(({ attempts }) => attempts.map((attempt) => `${target}/${attempt}`)),
  );
  const recovered = await fleet.database.query<{ attempt: string }>(
    `SELECT queue || '/' || job_id || ':' || retry_count AS attempt FROM recovery`,
  );
  expect(audited.sort()).toEqual(recovered.map(({ attempt }) => attempt).sort());
  expect(audited).toHaveLength(6);
});

test('a dry run and a sweep that takes nothing leave no event', async () => {
  const fleet = await createOrphans(['a']);
  const context = await openTestContext(fleet.url);
  await sweep(context.sweepDependencies(null, true));
  expect(await listEvents(fleet)).toEqual([]);
  await sweep(context.sweepDependencies(null, false));
  await sweep(context.sweepDependencies(null, false));
  expect(await listEvents(fleet)).toHaveLength(1);
});

test('what cannot be audited is not done', async () => {
  const fleet = await createOrphans(['a']);
  const context = await openTestContext(fleet.url);
  await fleet.database.query('ALTER TABLE audit ADD CONSTRAINT closed CHECK (false)');
  await expect(sweep(context.sweepDependencies(null, false))).rejects.toThrow('batches of the sweep failed');
  expect(await fleet.database.query(`SELECT FROM job WHERE state = 'active'`)).toHaveLength(3);
  expect(await fleet.database.query('SELECT FROM recovery')).toEqual([]);
});

test.each(['UPDATE audit SET actor = $$nobody$$', 'DELETE FROM audit', 'TRUNCATE audit'])(
  '%s is refused, to the owner too',
  async (statement) => {
    const fleet = await createOrphans(['a']);
    const context = await openTestContext(fleet.url);
    await sweep(context.sweepDependencies(null, false));
    const before = await listEvents(fleet);
    await expect(fleet.database.query(statement)).rejects.toThrow(PermissionDenied);
    await expect(
      fleet.database.transaction(async (tx) => {
        await tx.query('SET LOCAL session_replication_role = replica');
        await tx.query(statement);
      }),
    ).rejects.toThrow(PermissionDenied);
    expect(await listEvents(fleet)).toEqual(before);
  },
);
