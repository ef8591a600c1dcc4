import { expect, test } from 'vitest';
import { createWorkflowDoor } from '../../src/actions/workflow-door.ts';
import { settleFlows } from '../../src/workflows/stuck-flows.ts';
import { completeAttempt } from '../support/complete.ts';
import type { BossOptions } from '../support/database.ts';
import { chainOfThree, createFlows } from '../support/flows.ts';

const ORDER = { actor: 'ann@desk', reason: 'it was asked for' };

async function createRepairs(env: Record<string, string> = {}, queues?: BossOptions['queues']) {
  const fleet = await createFlows(env, queues ? { queues } : {});
  const { jobs, flows } = fleet.context;
  return { ...fleet, door: createWorkflowDoor({ jobs, flows, node: 'test' }) };
}

test.each(['fail', 'cancel'] as const)('after a %s the parent is tried again and its children follow', async (end) => {
  const { boss, database, door, run, stateOf } = await createRepairs();
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  const jobId = await run('parent', end);
  const parent = { queue: 'parent', jobId, retryCount: 0, state: end === 'fail' ? 'failed' : 'cancelled' } as const;
  expect(await database.transaction((tx) => door.retryParent(tx, ORDER, { ...parent, retryCount: 7 }))).toMatchObject({ done: false });
  expect(await database.transaction((tx) => door.retryParent(tx, ORDER, parent))).toEqual({ done: true, jobs: [`parent/${jobId}`] });
  expect(await database.transaction((tx) => door.retryParent(tx, ORDER, parent))).toMatchObject({ done: false });
  await run('parent', 'complete');
  await boss.resolveFlow();
  expect(await stateOf(ids['child'] ?? '')).toMatchObject({ blocked: false });
  expect(await database.query(`SELECT actor, target, reason FROM audit WHERE action = 'workflow_retry_parent'`)).toEqual([
    { actor: 'ann@desk', target: `parent/${jobId}`, reason: 'it was asked for' },
  ]);
});

test('cancelling descendants takes the whole chain, once, and not when the parent has come back', async () => {
  const { boss, database, door, run, stateOf } = await createRepairs();
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  const children = [{ queue: 'child', jobId: ids['child'] ?? '' }];
  const cancel = () => database.transaction((tx) => door.cancelDescendants(tx, ORDER, 'the parent', children));
  expect(await cancel()).toMatchObject({ done: false });
  const parent = await run('parent', 'fail');
  await boss.retry('parent', parent);
  expect(await cancel()).toMatchObject({ done: false });
  await run('parent', 'fail');
  expect(await cancel()).toMatchObject({ done: true, jobs: [`child/${ids['child']}`, `grandchild/${ids['grandchild']}`] });
  expect(await stateOf(ids['grandchild'] ?? '')).toMatchObject({ state: 'cancelled' });
  expect(await cancel()).toMatchObject({ done: false });
  expect(await database.query(`SELECT FROM audit WHERE action = 'workflow_cancel_descendants'`)).toHaveLength(1);
});

test('an unblocked child runs without its parent, which does not count it down once more when it completes after all', async () => {
  const { boss, database, door, run, stateOf } = await createRepairs();
  const ids = (await boss.flow([
    { ref: 'bad', name: 'parent' },
    { ref: 'living', name: 'grandchild' },
    { ref: 'child', name: 'child', dependsOn: ['bad', 'living'] },
  ])) as Record<string, string>;
  const child = { queue: 'child', jobId: ids['child'] ?? '', retryCount: 0 };
  const unblock = () => database.transaction((tx) => door.unblockChild(tx, ORDER, child));
  expect(await unblock()).toMatchObject({ done: false });
  const bad = await run('parent', 'fail');
  expect(await unblock()).toEqual({ done: true, jobs: [`child/${child.jobId}`] });
  expect(await stateOf(child.jobId)).toMatchObject({ blocked: true, pending: 1 });
  expect(await unblock()).toMatchObject({ done: false });
  await boss.retry('parent', bad);
  await run('parent', 'complete');
  await boss.resolveFlow();
  expect(await stateOf(child.jobId)).toMatchObject({ blocked: true, pending: 1 });
  await run('grandchild', 'complete');
  await boss.resolveFlow();
  expect(await stateOf(child.jobId)).toMatchObject({ blocked: false, pending: 0 });
});

test('a child whose parent is gone runs when it is unblocked, and wakes nobody when it is refused', async () => {
  const { boss, database, door, run, stateOf, settle } = await createRepairs();
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  await run('parent', 'delete');
  const child = { queue: 'child', jobId: ids['child'] ?? '', retryCount: 0 };
  expect(await database.transaction((tx) => door.unblockChild(tx, ORDER, child))).toMatchObject({ done: true });
  expect(await stateOf(child.jobId)).toMatchObject({ blocked: false, pending: 0 });
  expect((await settle()).flows).toEqual([]);
  const [job] = await boss.fetch('child', { includeMetadata: true });
  expect(job && (await completeAttempt(boss, 'child', job))).toBe(true);
});

test('retention and the repair at once: the job is deleted or cancelled, never half of it', async () => {
  const { boss, database, door, run } = await createRepairs();
  const flows = await Promise.all(Array.from({ length: 10 }, () => chainOfThree(boss)));
  for (const _ of flows) await run('parent', 'fail');
  await database.query(`UPDATE job SET keep_until = now() - interval '1 day' WHERE name = 'child'`);
  await database.query('UPDATE queue SET maintain_on = NULL');
  const ids = flows.map((flow) => (flow as Record<string, string>)['child'] ?? '');
  const [, ...changes] = await Promise.all([
    boss.supervise(),
    ...ids.map((jobId) => database.transaction((tx) => door.cancelDescendants(tx, ORDER, jobId, [{ queue: 'child', jobId }]))),
  ]);
  const left = await database.query<{ id: string; state: string }>(`SELECT id, state::text FROM job WHERE name = 'child'`);
  const told = await database.query<{ jobs: string[] }>(
    `SELECT detail->'jobs' AS jobs FROM audit WHERE action = 'workflow_cancel_descendants'`,
  );
  const cancelled = told.flatMap(({ jobs }) => jobs.filter((name) => name.startsWith('child/')));
  expect(told).toHaveLength(changes.filter(({ done }) => done).length);
  for (const { id, state } of left) expect([state, cancelled.includes(`child/${id}`)]).toEqual(['cancelled', true]);
});

test.each<[string, string]>([
  ['cancel-children', 'cancelled'],
  ['retry-parent', 'created'],
  ['hold', 'created'],
])('policy %s', async (policy, childState) => {
  const { boss, settle, run, stateOf } = await createRepairs({ RECLAIMD_WORKFLOW_POLICIES: `par*=${policy}:max=2` });
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  const parent = await run('parent', 'fail');
  expect(await settle(true)).toMatchObject({ retried: 0, cancelled: 0 });
  const first = await settle();
  expect(await stateOf(ids['grandchild'] ?? '')).toMatchObject({ state: childState });
  expect(first.flows).toHaveLength(policy === 'hold' ? 1 : 0);
  if (policy !== 'retry-parent') return;
  await run('parent', 'fail');
  expect((await settle()).retried).toBe(1);
  await run('parent', 'fail');
  // Twice is all: now it is a person's.
  const third = await settle();
  expect(third).toMatchObject({
    retried: 0,
    flows: [{ parent: `parent/${parent}` }],
    incidents: { opened: [{ class: 'workflow_stuck' }] },
  });
});

test('a thousand children in a table of their own are cancelled in one turn', async () => {
  const { boss, database, settle, run } = await createRepairs({ RECLAIMD_WORKFLOW_POLICIES: 'parent=cancel-children' }, [
    { name: 'parent', retryLimit: 0 },
    { name: 'child', partition: true },
  ]);
  const children = Array.from({ length: 1_000 }, (_, index) => ({ ref: `c${index}`, name: 'child', dependsOn: ['root'] }));
  await boss.flow([{ ref: 'root', name: 'parent' }, ...children]);
  await run('parent', 'fail');
  expect(await settle()).toMatchObject({ cancelled: 1_000, flows: [] });
  expect(await database.query(`SELECT FROM job WHERE name = 'child' AND state = 'cancelled'`)).toHaveLength(1_000);
});

test('a parent that retention took before the repair is not retried', async () => {
  const { boss, database, door, run } = await createRepairs();
  await chainOfThree(boss);
  const jobId = await run('parent', 'fail');
  await database.query('DELETE FROM job WHERE id = $1', [jobId]);
  const parent = { queue: 'parent', jobId, retryCount: 0, state: 'failed' } as const;
  expect(await database.transaction((tx) => door.retryParent(tx, ORDER, parent))).toEqual({
    done: false,
    moved: `parent/${jobId} is gone`,
  });
});

test('a flow that cannot be settled keeps no other from it, and is told of', async () => {
  const { boss, database, context, run } = await createRepairs({ RECLAIMD_WORKFLOW_POLICIES: '*=cancel-children' });
  const first = (await chainOfThree(boss)) as Record<string, string>;
  await chainOfThree(boss);
  await run('parent', 'fail');
  await run('parent', 'fail');
  const dependencies = context.flowDependencies(false);
  const { door } = dependencies;
  const broken = `parent/${first['parent']}`;
  const report = await settleFlows({
    ...dependencies,
    door: {
      ...door,
      cancelDescendants: (tx, order, target, children) =>
        target === broken ? Promise.reject(new Error('no')) : door.cancelDescendants(tx, order, target, children),
    },
  });
  expect(report).toMatchObject({ cancelled: 2, failures: [{ message: 'no' }], flows: [{ parent: broken }] });
  expect(await database.query(`SELECT fingerprint FROM incident`)).toEqual([{ fingerprint: `workflow_stuck:flow:${broken}` }]);
});

test('what a person cancelled is not retried by the policy', async () => {
  const { boss, settle, run, stateOf } = await createRepairs({ RECLAIMD_WORKFLOW_POLICIES: '*=retry-parent' });
  await chainOfThree(boss);
  const parent = await run('parent', 'cancel');
  expect((await settle()).retried).toBe(0);
  expect(await stateOf(parent)).toMatchObject({ state: 'cancelled' });
});
