import type { PgBoss } from 'pg-boss';
import { expect, test } from 'vitest';
import { createWorkflowDoor, type WorkflowChange } from '../../src/actions/workflow-door.ts';
import { asPgBossDb } from '../../src/pgboss/client.ts';
import type { Sql } from '../../src/postgres/database.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair } from '../../src/repairs/preview.ts';
import { settleFlows } from '../../src/workflows/stuck-flows.ts';
import { completeAttempt } from '../support/complete.ts';
import type { BossOptions } from '../support/database.ts';
import { addWideFlow, chainOfThree, createFlows } from '../support/flows.ts';
import { meanwhile } from '../support/meanwhile.ts';
import { wokenBy } from '../support/woken.ts';

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

test('a child whose parent is gone runs when it is unblocked', async () => {
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

test('workers are woken by what they can run now: a parent that is retried, a child that is free, and by no other', async () => {
  const { boss, url, database, door, run } = await createRepairs({}, [
    { name: 'parent', retryLimit: 0, notify: true },
    { name: 'child', notify: true },
    { name: 'living' },
  ]);
  const ids = (await boss.flow([
    { ref: 'bad', name: 'parent' },
    { ref: 'living', name: 'living' },
    { ref: 'waits', name: 'child', dependsOn: ['bad', 'living'] },
    { ref: 'free', name: 'child', dependsOn: ['bad'] },
  ])) as Record<string, string>;
  const parent = { queue: 'parent', jobId: await run('parent', 'fail'), retryCount: 0, state: 'failed' } as const;
  const woken = (repair: (tx: Sql) => Promise<WorkflowChange>) => wokenBy(url, () => database.transaction(repair));
  const unblock = (ref: string, retryCount: number) => (tx: Sql) =>
    door.unblockChild(tx, ORDER, { queue: 'child', jobId: ids[ref] ?? '', retryCount });
  expect(await woken((tx) => door.retryParent(tx, ORDER, { ...parent, retryCount: 7 }))).toEqual([]);
  expect(await woken(unblock('free', 7))).toEqual([]);
  expect(await woken(unblock('waits', 0))).toEqual([]);
  expect(await woken(unblock('free', 0))).toEqual(['child']);
  expect(await woken((tx) => door.retryParent(tx, ORDER, parent))).toEqual(['parent']);
});

test('a child that is at another attempt than was shown is not unblocked', async () => {
  const { database, door, child, stateOf } = await failedFlow();
  const unblock = (retryCount: number) =>
    database.transaction((tx) => door.unblockChild(tx, ORDER, { queue: 'child', jobId: child, retryCount }));
  await database.query('UPDATE job SET retry_count = 1 WHERE id = $1', [child]);
  expect(await unblock(0)).toMatchObject({ done: false });
  expect(await stateOf(child)).toMatchObject({ blocked: true });
  expect(await unblock(1)).toMatchObject({ done: true });
});

test.each([
  ['earlier starts now', '-1 hour', 0],
  ['later keeps its start', '1 hour', 3_600],
])('a child that is let go and was to start %s', async (_, start, seconds) => {
  const { database, door, child } = await failedFlow();
  await database.query('UPDATE job SET start_after = now() + $2::interval WHERE id = $1', [child, start]);
  await database.transaction((tx) => door.unblockChild(tx, ORDER, { queue: 'child', jobId: child, retryCount: 0 }));
  const [job] = await database.query<{ wait: number }>(
    'SELECT extract(epoch FROM start_after - now())::float8 AS wait FROM job WHERE id = $1',
    [child],
  );
  expect(job?.wait).toBeLessThanOrEqual(seconds);
  expect(job?.wait).toBeGreaterThan(seconds - 600);
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
  const states = new Map(left.map(({ id, state }) => [id, state]));
  for (const id of ids)
    expect([id, states.get(id) ?? 'deleted']).toEqual([id, cancelled.includes(`child/${id}`) ? 'cancelled' : 'deleted']);
});

type Fleet = Awaited<ReturnType<typeof createRepairs>>;

const REPAIRS: [string, (fleet: Fleet, parent: string, child: string) => (tx: Sql) => Promise<WorkflowChange>][] = [
  [
    'retry of the parent',
    ({ door }, parent) =>
      (tx) =>
        door.retryParent(tx, ORDER, { queue: 'parent', jobId: parent, retryCount: 0, state: 'failed' }),
  ],
  [
    'cancel of the descendants',
    ({ door }, parent, child) =>
      (tx) =>
        door.cancelDescendants(tx, ORDER, `parent/${parent}`, [{ queue: 'child', jobId: child }]),
  ],
  [
    'unblock of the child',
    ({ door }, _, child) =>
      (tx) =>
        door.unblockChild(tx, ORDER, { queue: 'child', jobId: child, retryCount: 0 }),
  ],
];

async function failedFlow() {
  const fleet = await createRepairs();
  const ids = (await chainOfThree(fleet.boss)) as Record<string, string>;
  return { ...fleet, parent: await fleet.run('parent', 'fail'), child: ids['child'] ?? '' };
}

test.each(REPAIRS)('%s while the parent is retried: it waits, and leaves everything alone', async (_, repairOf) => {
  const { parent, child, ...fleet } = await failedFlow();
  const { database, boss } = fleet;
  const { waited, result } = await meanwhile(
    database,
    (tx) => boss.retry('parent', parent, { db: asPgBossDb(tx) }),
    () => database.transaction(repairOf(fleet, parent, child)),
  );
  expect([waited, result]).toMatchObject([true, { done: false }]);
  expect(await fleet.stateOf(child)).toMatchObject({ state: 'created', blocked: true, pending: 1 });
  expect(await database.query('SELECT FROM audit')).toEqual([]);
});

test.each(REPAIRS)('%s, and retention at the same time: what retention took is not repaired', async (action, repairOf) => {
  const { parent, child, ...fleet } = await failedFlow();
  const { database } = fleet;
  const { waited, result } = await meanwhile(
    database,
    (tx) => tx.query('DELETE FROM job WHERE id = $1', [action.startsWith('retry') ? parent : child]),
    () => database.transaction(repairOf(fleet, parent, child)),
  );
  expect([waited, result]).toMatchObject([true, { done: false }]);
  expect(await database.query('SELECT FROM audit')).toEqual([]);
});

test.each(REPAIRS)('%s by two people at the same time: one does it, the other is told', async (_, repairOf) => {
  const { parent, child, ...fleet } = await failedFlow();
  const { database } = fleet;
  const { result } = await meanwhile(database, repairOf(fleet, parent, child), () => database.transaction(repairOf(fleet, parent, child)));
  expect(result).toMatchObject({ done: false });
  expect(await database.query('SELECT FROM audit')).toHaveLength(1);
});

test('a parent that is retried while its child is unblocked does not count it down for another', async () => {
  const fleet = await createRepairs();
  const { boss, database, door, run, stateOf } = fleet;
  const ids = (await boss.flow([
    { ref: 'bad', name: 'parent' },
    { ref: 'living', name: 'grandchild' },
    { ref: 'child', name: 'child', dependsOn: ['bad', 'living'] },
  ])) as Record<string, string>;
  const bad = await run('parent', 'fail');
  const child = { queue: 'child', jobId: ids['child'] ?? '', retryCount: 0 };
  await meanwhile(
    database,
    (tx) => door.unblockChild(tx, ORDER, child),
    async () => {
      await boss.retry('parent', bad);
      await run('parent', 'complete');
      await boss.resolveFlow();
    },
  );
  expect(await stateOf(child.jobId)).toMatchObject({ blocked: true, pending: 1 });
});

test.each([
  ['a retry', (boss: PgBoss, parent: string) => boss.retry('parent', parent)],
  ['retention', (boss: PgBoss, parent: string) => boss.deleteJob('parent', parent)],
])('%s of the parent waits until what is behind it is cancelled', async (_, change) => {
  const { boss, database, parent, child, door } = await failedFlow();
  const { waited } = await meanwhile(
    database,
    (tx) => door.cancelDescendants(tx, ORDER, `parent/${parent}`, [{ queue: 'child', jobId: child }]),
    () => change(boss, parent),
  );
  expect(waited).toBe(true);
});

test('a child that is let go while it is cancelled runs: its parent is gone, so that only its own lock stands between', async () => {
  const fleet = await createRepairs();
  const { boss, database, door, run, stateOf } = fleet;
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  await run('parent', 'delete');
  const child = { queue: 'child', jobId: ids['child'] ?? '', retryCount: 0 };
  const { result } = await meanwhile(
    database,
    (tx) => door.unblockChild(tx, ORDER, child),
    () => database.transaction((tx) => door.cancelDescendants(tx, ORDER, 'its parent', [child])),
  );
  expect(result).toMatchObject({ done: false });
  expect(await stateOf(child.jobId)).toMatchObject({ state: 'created', blocked: false });
});

test('a parent that has no room under its queue is left alone, by a person and by the policy', async () => {
  const { boss, database, door, context, settle, run } = await createRepairs({ RECLAIMD_WORKFLOW_POLICIES: '*=retry-parent' }, [
    { name: 'parent', policy: 'stately', retryLimit: 1, retryDelay: 600 },
    { name: 'child' },
  ]);
  await boss.flow([
    { ref: 'parent', name: 'parent', options: { retryLimit: 0 } },
    { ref: 'child', name: 'child', dependsOn: ['parent'] },
  ]);
  const parent = await run('parent', 'fail');
  await boss.send('parent', {});
  await run('parent', 'fail');
  const asked = { action: 'workflow_retry_parent', targets: [`parent/${parent}`], actor: ORDER.actor };
  expect(await previewRepair(context.repairDependencies(), asked)).toMatchObject({
    refused: 'impossible',
    message: expect.stringContaining(`has the only place that its queue leaves for parent/${parent}`),
  });
  const change = await database.transaction((tx) =>
    door.retryParent(tx, ORDER, { queue: 'parent', jobId: parent, retryCount: 0, state: 'failed' }),
  );
  expect(change).toMatchObject({ done: false, moved: expect.stringContaining('room for one only') });
  expect(await settle()).toMatchObject({ retried: 0, failures: [], flows: [{ parent: `parent/${parent}` }] });
  expect(await database.query('SELECT FROM audit')).toEqual([]);
});

test('a parent whose copy was redriven is not retried by the policy, and a person is warned', async () => {
  const { boss, context, settle, run, stateOf } = await createRepairs({ RECLAIMD_WORKFLOW_POLICIES: 'parent=retry-parent' }, [
    { name: 'dead' },
    { name: 'parent', retryLimit: 0, deadLetter: 'dead' },
    { name: 'child' },
    { name: 'grandchild' },
  ]);
  await chainOfThree(boss);
  const parent = await run('parent', 'fail');
  const warningsOf = async () => {
    const asked = { action: 'workflow_retry_parent', targets: [`parent/${parent}`], actor: ORDER.actor };
    const shown = await previewRepair(context.repairDependencies(), asked);
    return shown.done ? shown.plan.flow?.warnings : shown.message;
  };
  expect(await warningsOf()).toEqual(['2 jobs wait behind it', expect.stringMatching(/^its copy dead\/.* is created: .*twice$/)]);
  const early = await previewRepair(context.repairDependencies(), {
    action: 'workflow_retry_parent',
    targets: [`parent/${parent}`],
    actor: ORDER.actor,
  });
  await boss.redrive('dead');
  const copy = await run('parent', 'complete');
  expect(await warningsOf()).toEqual([
    '2 jobs wait behind it',
    `it was redriven as parent/${copy}, which is completed: its work is done twice`,
  ]);
  const late = await executeRepair(context.repairDependencies(), {
    token: early.done ? (early.token ?? '') : '',
    actor: ORDER.actor,
    reason: ORDER.reason,
  });
  expect(late).toMatchObject({ refused: 'drifted', message: expect.stringContaining('what became of its copy was dead/') });
  expect((await settle(true)).retried).toBe(0);
  expect((await settle()).retried).toBe(0);
  expect(await stateOf(parent)).toMatchObject({ state: 'failed' });
});

test('a parent of a queue that blocks its keys is retried with a warning', async () => {
  const { boss, context, run } = await createRepairs({}, [{ name: 'parent', policy: 'key_strict_fifo', retryLimit: 0 }, { name: 'child' }]);
  await boss.flow([
    { ref: 'parent', name: 'parent', options: { singletonKey: 'k' } },
    { ref: 'child', name: 'child', dependsOn: ['parent'] },
  ]);
  const parent = await run('parent', 'fail');
  const asked = { action: 'workflow_retry_parent', targets: [`parent/${parent}`], actor: ORDER.actor };
  expect(await previewRepair(context.repairDependencies(), asked)).toMatchObject({
    plan: { flow: { warnings: ['1 job waits behind it', expect.stringContaining('key_strict_fifo')] } },
  });
});

test.each([
  [6_000, 6_000],
  [20_500, 0],
])(
  'a flow of %i children and %i behind them: nothing is left, or the preview refuses it',
  async (children, grandchildren) => {
    const { database, context, settle } = await createRepairs({ RECLAIMD_WORKFLOW_POLICIES: 'parent=cancel-children' });
    const parent = await addWideFlow(database, children, grandchildren);
    const asked = { action: 'workflow_cancel_descendants', targets: [`parent/${parent}`], actor: ORDER.actor };
    const shown = await previewRepair(context.repairDependencies(), asked);
    if (children > 20_000) expect(shown).toMatchObject({ refused: 'impossible', message: expect.stringContaining('more than 20000 jobs') });
    else expect(shown).toMatchObject({ plan: { flow: { jobs: { length: children + grandchildren } } } });
    let cancelled = 0;
    for (let turn = 0; turn < 2; turn++) cancelled += (await settle()).cancelled;
    expect(cancelled).toBe(children + grandchildren);
    expect(await database.query(`SELECT FROM job WHERE blocked AND state = 'created'`)).toEqual([]);
    expect(await database.query('SELECT FROM incident WHERE resolved_at IS NULL')).toEqual([]);
    const [told] = await database.query<{ count: number }>(
      `SELECT sum(jsonb_array_length(detail->'jobs'))::int AS count FROM audit WHERE action = 'workflow_cancel_descendants'`,
    );
    expect(told?.count).toBe(cancelled);
  },
  180_000,
);

test('what a preview showed of a flow is done to its last job', async () => {
  const { database, context } = await createRepairs();
  const parent = await addWideFlow(database, 6_000, 6_000);
  const dependencies = context.repairDependencies();
  const shown = await previewRepair(dependencies, {
    action: 'workflow_cancel_descendants',
    targets: [`parent/${parent}`],
    actor: ORDER.actor,
  });
  if (!shown.done || shown.token === null) throw new Error('refused');
  const executed = await executeRepair(dependencies, { token: shown.token, actor: ORDER.actor, reason: ORDER.reason });
  expect(executed).toMatchObject({ done: true, partial: false, targets: { length: 12_000 } });
  expect(await database.query(`SELECT FROM job WHERE state <> 'cancelled'`)).toHaveLength(1);
}, 180_000);

test.each<[string, string]>([
  ['cancel-children', 'cancelled'],
  ['retry-parent', 'created'],
  ['hold', 'created'],
])('policy %s', async (policy, childState) => {
  const { boss, settle, run, stateOf } = await createRepairs({ RECLAIMD_WORKFLOW_POLICIES: `par*=${policy}:max=2` });
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  const parent = await run('parent', 'fail');
  expect(await settle(true)).toMatchObject({ retried: policy === 'retry-parent' ? 1 : 0, cancelled: policy === 'cancel-children' ? 2 : 0 });
  expect(await stateOf(parent)).toMatchObject({ state: 'failed' });
  expect(await stateOf(ids['grandchild'] ?? '')).toMatchObject({ state: 'created' });
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
