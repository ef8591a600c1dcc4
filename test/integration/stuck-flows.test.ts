import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import type { WalkPosition } from '../../src/actions/flow-store.ts';
import { createProgram } from '../../src/cli/program.ts';
import { listIncidents, readIncident } from '../../src/incidents/listing.ts';
import type { Database, Sql } from '../../src/postgres/database.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair } from '../../src/repairs/preview.ts';
import { nameOf, type Walk, walkBlocked } from '../../src/workflows/find-stuck.ts';
import { settleFlows } from '../../src/workflows/stuck-flows.ts';
import { completeAttempt } from '../support/complete.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { openTestContext } from '../support/executor.ts';
import { addAllToAll, addWideFlow, chainOfThree, createFlows, type End } from '../support/flows.ts';
import { passesOf } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';

const stuckIncidents = async (database: Database) => (await listIncidents(database, { class: 'workflow_stuck' })).incidents;

test.each<[string, End, string]>([
  ['failed', 'fail', 'parent_failed'],
  ['was cancelled', 'cancel', 'parent_cancelled'],
  ['was deleted', 'delete', 'parent_gone'],
])('a parent that %s leaves one incident with the whole chain behind it', async (_, end, reason) => {
  const { boss, database, settle, run } = await createFlows();
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  expect((await settle()).flows).toEqual([]);
  await run('parent', end);
  await settle();
  const [incident, ...others] = await stuckIncidents(database);
  expect(others).toEqual([]);
  expect(incident).toMatchObject({ affected: 2, queues: ['child', 'grandchild', 'parent'] });
  const whole = await readIncident(database, incident?.id ?? '');
  expect(whole?.evidence).toMatchObject({
    parent: `parent/${ids['parent']}`,
    reason,
    children: [`child/${ids['child']}`],
    chain: [
      { job: `child/${ids['child']}`, state: 'created', waitsFor: `parent/${ids['parent']}` },
      { job: `grandchild/${ids['grandchild']}`, state: 'created', waitsFor: `child/${ids['child']}` },
    ],
  });
  expect(JSON.stringify(whole)).not.toContain('secret');
  expect(Date.parse(String(whole?.evidence['deletedAt']))).toBeGreaterThan(Date.now());
  // Looking again writes nothing new.
  expect((await settle()).incidents).toEqual({ opened: [], resolved: [] });
});

test('a parent that completed and was deleted by retention before it was resolved', async () => {
  const { boss, database, settle, run } = await createFlows();
  await chainOfThree(boss);
  const parent = await run('parent', 'complete');
  await database.query(`UPDATE job SET completed_on = now() - interval '1 year', deletion_seconds = 1 WHERE id = $1`, [parent]);
  await database.query('UPDATE queue SET maintain_on = NULL');
  await boss.supervise();
  expect(await database.query('SELECT FROM job WHERE id = $1', [parent])).toEqual([]);
  const { flows } = await settle();
  expect(flows).toMatchObject([{ reason: 'parent_gone', children: [{ queue: 'child' }] }]);
  expect(await stuckIncidents(database)).toHaveLength(1);
});

test('a parent that was dead-lettered and redriven lives on under another id', async () => {
  const { boss, database, settle, run, stateOf } = await createFlows(
    {},
    { queues: [{ name: 'dead' }, { name: 'parent', retryLimit: 0, deadLetter: 'dead' }, { name: 'child' }, { name: 'grandchild' }] },
  );
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  await run('parent', 'fail');
  await boss.redrive('dead');
  const redriven = await run('parent', 'complete');
  expect(redriven).not.toBe(ids['parent']);
  await boss.resolveFlow();
  expect(await stateOf(ids['child'] ?? '')).toMatchObject({ blocked: true });
  const { flows } = await settle();
  expect(flows).toMatchObject([{ parent: `parent/${ids['parent']}`, reason: 'parent_failed', deadLetter: 'dead' }]);
  expect(await stuckIncidents(database)).toHaveLength(1);
});

test('a parent that completed without its children being told is resolved on the spot', async () => {
  const { boss, database, settle, run, stateOf } = await createFlows();
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  const parent = await run('parent', 'complete');
  expect((await settle()).resolved).toBe(0);
  expect(await stateOf(ids['child'] ?? '')).toMatchObject({ blocked: true });
  await database.query(`UPDATE job SET completed_on = now() - interval '1 minute' WHERE id = $1`, [parent]);
  expect(await settle(true)).toMatchObject({ resolved: 1, unresolved: 1 });
  expect(await stateOf(ids['child'] ?? '')).toMatchObject({ blocked: true });
  expect(await settle()).toMatchObject({ resolved: 1, unresolved: 0, flows: [] });
  expect(await stateOf(ids['child'] ?? '')).toMatchObject({ blocked: false });
  // pg-boss's call joins no transaction: what was about to be done is on record as well as what was.
  const events = await database.query(`SELECT outcome, detail FROM audit WHERE action = 'workflow_resolve' ORDER BY seq`);
  expect(events).toEqual([
    { outcome: 'unknown', detail: { intent: true, jobs: [`parent/${parent}`] } },
    { outcome: 'done', detail: { jobs: [`parent/${parent}`] } },
  ]);
});

test('a child whose other parent was resolved and then deleted does not count as stuck', async () => {
  const { boss, database, settle } = await createFlows();
  const ids = (await boss.flow([
    { ref: 'a', name: 'parent' },
    { ref: 'b', name: 'parent' },
    { ref: 'c', name: 'child', dependsOn: ['a', 'b'] },
  ])) as Record<string, string>;
  const [job] = await boss.fetch('parent', { includeMetadata: true });
  if (!job) throw new Error('nothing fetched');
  await completeAttempt(boss, 'parent', job);
  await boss.resolveFlow();
  await database.query('DELETE FROM job WHERE id = $1', [job.id]);
  expect((await settle()).flows).toEqual([]);
  // The other one is deleted unresolved: now it is, and which of the two is to blame nobody can tell.
  await database.query('DELETE FROM job WHERE id = ANY($1) AND id <> $2', [[ids['a'], ids['b']], job.id]);
  expect((await settle()).flows).toMatchObject([
    { parent: null, parents: [{ queue: 'parent' }, { queue: 'parent' }], reason: 'parent_gone', children: [{ jobId: ids['c'] }] },
  ]);
});

/** Of the statement that the feature itself makes. */
async function planOf(database: Database, ask: (sql: Sql) => Promise<unknown>): Promise<string> {
  let plan = '';
  const query = async <Row extends object>(text: string, values: readonly unknown[] = []): Promise<Row[]> => {
    const rows = await database.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${text}`, values);
    plan += rows.map((row) => row['QUERY PLAN']).join('\n');
    return [];
  };
  await ask({ query, execute: database.execute });
  return plan;
}

async function maintain({ boss, database }: Awaited<ReturnType<typeof createFlows>>) {
  await database.query('UPDATE queue SET maintain_on = NULL');
  await boss.supervise();
}

const broad = (width: number) => [
  { ref: 'root', name: 'parent' },
  ...Array.from({ length: width }, (_, index) => ({ ref: `c${index}`, name: 'child', dependsOn: ['root'] })),
];

test('many children of a parent that nobody has seen and that is gone with its record: one incident, and each can be cancelled', async () => {
  const fleet = await createFlows({}, {});
  const { boss, database, context, settle, run } = fleet;
  await boss.flow(broad(50));
  const parent = await run('parent', 'complete');
  await database.query(`UPDATE job SET completed_on = now() - interval '1 year', deletion_seconds = 1 WHERE id = $1`, [parent]);
  await maintain(fleet);
  expect(await database.query('SELECT FROM job_dependency')).toEqual([]);
  const { flows } = await settle();
  expect(flows).toMatchObject([{ parent: null, parents: [], children: { length: 50 } }]);
  expect(await stuckIncidents(database)).toMatchObject([{ affected: 50, fingerprint: 'workflow_stuck:flow:of child' }]);
  const child = `child/${flows[0]?.children[0]?.jobId}`;
  const asked = { action: 'workflow_cancel_descendants', targets: [child], actor: 'ann@desk' };
  const dependencies = context.repairDependencies();
  const shown = await previewRepair(dependencies, asked);
  expect(shown).toMatchObject({ plan: { flow: { jobs: [child] } } });
  if (!shown.done || shown.token === null) throw new Error('refused');
  expect(await executeRepair(dependencies, { token: shown.token, actor: 'ann@desk', reason: 'nobody needs it' })).toMatchObject({
    targets: [{ target: child, state: 'cancelled' }],
  });
  expect(await settle()).toMatchObject({ flows: [{ children: { length: 49 } }] });
  expect(await stuckIncidents(database)).toMatchObject([{ affected: 49 }]);
});

test('a parent that was seen stays known when its record is deleted: the incident, its policy and its repair too', async () => {
  const fleet = await createFlows();
  const { boss, database, url, context, settle, run } = fleet;
  await boss.flow(broad(30));
  const parent = await run('parent', 'delete');
  await settle();
  const [incident] = await stuckIncidents(database);
  await maintain(fleet);
  expect(await database.query('SELECT FROM job_dependency')).toEqual([]);
  expect((await settle()).incidents).toEqual({ opened: [], resolved: [] });
  expect(await stuckIncidents(database)).toMatchObject([{ id: incident?.id, affected: 30 }]);
  const asked = { action: 'workflow_cancel_descendants', targets: [`parent/${parent}`], actor: 'ann@desk' };
  expect(await previewRepair(context.repairDependencies(), asked)).toMatchObject({ plan: { flow: { jobs: { length: 30 } } } });
  const cancelling = await openTestContext(url, { RECLAIMD_WORKFLOW_POLICIES: 'parent=cancel-children' });
  expect(await settleFlows(cancelling.flowDependencies(false))).toMatchObject({ cancelled: 30, flows: [] });
  expect(await stuckIncidents(database)).toEqual([]);
  expect(await database.query('SELECT FROM stuck_job')).toEqual([]);
});

test.each([
  ['parent=cancel-children', 20, 0],
  ['other=cancel-children,child=cancel-children', 0, 1],
  ['*=cancel-children', 20, 0],
])('two parents gone that have twenty children together, policy %s: %i cancelled, %i incident', async (policies, cancelled, incidents) => {
  const { boss, database, settle, run } = await createFlows({ RECLAIMD_WORKFLOW_POLICIES: policies });
  const children = Array.from({ length: 20 }, (_, index) => ({ ref: `c${index}`, name: 'child', dependsOn: ['a', 'b'] }));
  await boss.flow([{ ref: 'a', name: 'parent' }, { ref: 'b', name: 'parent' }, ...children]);
  await run('parent', 'delete');
  await run('parent', 'delete');
  expect((await settle(true)).cancelled).toBe(cancelled);
  expect((await settle()).cancelled).toBe(cancelled);
  expect(await stuckIncidents(database)).toHaveLength(incidents);
});

test('a diamond is one flow, and its last job is counted once', async () => {
  const { boss, settle, run } = await createFlows({ RECLAIMD_WORKFLOW_POLICIES: '*=cancel-children' });
  await boss.flow([
    { ref: 'top', name: 'parent' },
    { ref: 'left', name: 'child', dependsOn: ['top'] },
    { ref: 'right', name: 'child', dependsOn: ['top'] },
    { ref: 'bottom', name: 'grandchild', dependsOn: ['left', 'right'] },
  ]);
  await run('parent', 'fail');
  expect(await settle(true)).toMatchObject({ cancelled: 3, flows: [{ chain: { length: 3 } }] });
  expect(await settle()).toMatchObject({ cancelled: 3, flows: [] });
});

test('a job that retention took stays in the incident until somebody has acknowledged that, however the rest fares', async () => {
  const fleet = await createFlows();
  const { boss, database, settle, run } = fleet;
  const ids = (await boss.flow([...broad(2), { ref: 'below', name: 'grandchild', dependsOn: ['c1'] }])) as Record<string, string>;
  const parent = await run('parent', 'fail');
  await settle();
  // Whoever acknowledges what waits does not know yet of what will be lost.
  await database.query('UPDATE incident SET acknowledged_at = now()');
  await database.query(`UPDATE job SET keep_until = now() - interval '1 day' WHERE id = ANY($1)`, [[ids['c0'], ids['below']]]);
  await maintain(fleet);
  await settle();
  const [incident] = await stuckIncidents(database);
  const lost = { count: 2, jobs: [`child/${ids['c0']}`, `grandchild/${ids['below']}`] };
  const evidenceNow = async () => (await readIncident(database, incident?.id ?? ''))?.evidence;
  expect(await evidenceNow()).toMatchObject({ children: [`child/${ids['c1']}`], lost });
  await boss.retry('parent', parent);
  expect((await settle()).incidents).toEqual({ opened: [], resolved: [] });
  expect(await evidenceNow()).toMatchObject({ parent: `parent/${parent}`, lost });
  expect(await stuckIncidents(database)).toMatchObject([{ affected: 2, summary: expect.stringContaining('nobody saw') }]);
  await database.query('UPDATE incident SET acknowledged_at = now()');
  expect((await settle()).incidents.resolved).toEqual([{ class: 'workflow_stuck', count: 1 }]);
  expect(await database.query('SELECT FROM stuck_job')).toEqual([]);
});

test('of a thousand children that retention took the incident has the exact count', async () => {
  const fleet = await createFlows();
  const { database, settle } = fleet;
  await addWideFlow(database, 1_000, 0);
  await settle();
  await database.query(`UPDATE job SET keep_until = now() - interval '1 day' WHERE blocked`);
  await maintain(fleet);
  await settle();
  const [incident] = await stuckIncidents(database);
  expect(incident).toMatchObject({ affected: 1_000 });
  const lost = { count: 1_000, jobs: { length: 20 } };
  expect((await readIncident(database, incident?.id ?? ''))?.evidence).toMatchObject({ lost });
});

test('a cancelled child is no loss when retention deletes it later', async () => {
  const { boss, database, settle, run } = await createFlows();
  const ids = (await boss.flow(broad(2))) as Record<string, string>;
  const parent = await run('parent', 'fail');
  await settle();
  await boss.cancel('child', ids['c0'] ?? '');
  await settle();
  await database.query('DELETE FROM job WHERE id = $1', [ids['c0']]);
  await boss.retry('parent', parent);
  expect((await settle()).incidents.resolved).toEqual([{ class: 'workflow_stuck', count: 1 }]);
});

test('the walk sees every blocked job once, a part at a time: in any queue and table, also those made at the same moment', async () => {
  const { boss, database, context } = await createFlows(
    {},
    { queues: [{ name: 'parent', retryLimit: 0 }, { name: 'child', partition: true }, { name: 'grandchild' }, { name: 'z' }] },
  );
  for (let flow = 0; flow < 2; flow++) {
    await boss.flow([...broad(11), ...['grandchild', 'z'].map((name) => ({ ref: name, name, dependsOn: ['root'] }))]);
    const [job] = (await boss.fetch('parent')) ?? [];
    await boss.fail('parent', job?.id ?? '', {});
  }
  await database.query(`UPDATE job SET state = 'retry' WHERE id IN (SELECT id FROM job WHERE name = 'grandchild' LIMIT 1)`);
  const seen: string[] = [];
  let from: WalkPosition | null = null;
  let parts = 0;
  do {
    const walk: Walk = await walkBlocked(database, context.flows, from, 4);
    seen.push(...walk.children.map(nameOf));
    from = walk.next;
    parts += 1;
  } while (from);
  expect(parts).toBe(7);
  const blocked = await database.query<{ name: string }>(`SELECT name || '/' || id AS name FROM job WHERE blocked`);
  expect(seen.sort()).toEqual(blocked.map(({ name }) => name).sort());
});

test('more blocked jobs than a turn looks at: the next goes on, and what it passes over stays as it is', async () => {
  const { boss, url, database, context, settle } = await createFlows(
    { RECLAIMD_WORKFLOW_POLICIES: 'last=cancel-children' },
    {
      queues: [
        { name: 'child' },
        { name: 'healthy' },
        { name: 'last', retryLimit: 0 },
        { name: 'parent', retryLimit: 0 },
        { name: 'zlast' },
      ],
    },
  );
  const fail = async (parent: string, child: string) => {
    await boss.flow([
      { ref: 'p', name: parent },
      { ref: 'c', name: child, dependsOn: ['p'] },
    ]);
    const [job] = (await boss.fetch(parent)) ?? [];
    await boss.fail(parent, job?.id ?? '', {});
    return `${parent}/${job?.id}`;
  };
  await database.query(
    `WITH pair AS (SELECT gen_random_uuid() AS parent_id, gen_random_uuid() AS child_id FROM generate_series(1, 50000)),
     parent AS (INSERT INTO job (id, name, state, blocking) SELECT parent_id, 'healthy', 'created', true FROM pair),
     child AS (INSERT INTO job (id, name, state, blocked, pending_dependencies) SELECT child_id, 'healthy', 'created', true, 1 FROM pair)
     INSERT INTO job_dependency (child_name, child_id, parent_name, parent_id) SELECT 'healthy', child_id, 'healthy', parent_id FROM pair`,
  );
  await database.query('VACUUM ANALYZE job_common, job_dependency');
  const held = await fail('parent', 'child');
  const last = await fail('last', 'zlast');
  const page = await planOf(database, (sql) => context.flows.pageBlocked(sql, { queue: 'healthy', state: 'created' }, null, 100));
  expect(page).toMatch(/Index .*using job_common_i14/);
  const judged = await planOf(database, (sql) => context.flows.listStuck(sql, [{ queue: 'healthy', jobId: randomUUID() }]));
  const waiting = await planOf(database, (sql) => context.flows.listWaiting(sql, ['healthy', 'child', 'parent']));
  expect(page + judged + waiting).not.toContain('Seq Scan on job_');
  // A repair looks at its own flow, wherever the walk stands.
  const asked = { action: 'workflow_cancel_descendants', targets: [last], actor: 'ann@desk' };
  expect(await previewRepair(context.repairDependencies(), asked)).toMatchObject({ plan: { flow: { jobs: { length: 1 } } } });
  expect(await settle()).toMatchObject({ complete: false, cancelled: 0, flows: [{ parent: held }] });
  // A dry run has its own walk, and moves none on; a person is told of everything, as often as it is asked for.
  expect(await settle(true)).toMatchObject({ cancelled: 0 });
  for (let time = 0; time < 2; time++) {
    const printed: string[] = [];
    const env = { DATABASE_URL: url, RECLAIMD_WORKFLOW_POLICIES: 'last=cancel-children' };
    const surroundings = { env, out: (text: string) => printed.push(text), signal: new AbortController().signal };
    await createProgram(surroundings, '0', () => undefined).parseAsync(['reconcile', '--dry-run', '--json'], { from: 'user' });
    expect(JSON.parse(printed.join(''))).toMatchObject({ flows: { stuck: 2, cancelled: 1, complete: true } });
  }
  expect(await settle()).toMatchObject({ cancelled: 1, flows: [{ parent: held }], incidents: { resolved: [] } });
  expect(await stuckIncidents(database)).toHaveLength(1);
}, 180_000);

test('retry-parent leaves a parent alone whose copy went to a dead letter queue, whatever became of the copy', async () => {
  const { boss, settle, run, stateOf } = await createFlows(
    { RECLAIMD_WORKFLOW_POLICIES: '*=retry-parent' },
    { queues: [{ name: 'dead' }, { name: 'parent', retryLimit: 0, deadLetter: 'dead' }, { name: 'child' }] },
  );
  await boss.flow(broad(1));
  const parent = await run('parent', 'fail');
  expect((await settle()).retried).toBe(0);
  const copy = await run('dead', 'complete');
  expect((await settle()).retried).toBe(0);
  await boss.deleteJob('dead', copy);
  expect((await settle()).retried).toBe(0);
  expect(await stateOf(parent)).toMatchObject({ state: 'failed' });
});

test.each([
  ['discarded', false],
  ['failed', true],
])('retry-parent leaves a parent alone that was ended on purpose: %s, poison %s', async (outcome, poison) => {
  const { boss, database, settle, run, stateOf } = await createFlows({ RECLAIMD_WORKFLOW_POLICIES: '*=retry-parent:max=3' });
  await boss.flow(broad(1));
  const parent = await run('parent', 'fail');
  await database.query(
    `INSERT INTO recovery (queue, job_id, retry_count, verdict, policy, policy_source, outcome, poison, reason, node)
     SELECT name, id, retry_count, 'dead', 'discard', 'configured', $1, $2, 'its process is gone', 'n' FROM job WHERE id = $3`,
    [outcome, poison, parent],
  );
  expect((await settle()).retried).toBe(0);
  expect(await stateOf(parent)).toMatchObject({ state: 'failed' });
  await database.query('DELETE FROM recovery');
  expect((await settle()).retried).toBe(1);
});

test('a thousand parents and more are resolved, and each is on record', async () => {
  const { database, settle } = await createFlows();
  await addWideFlow(database, 1_500, 1_500);
  await database.query(
    `UPDATE job SET state = 'completed', blocked = false, completed_on = now() - interval '1 minute' WHERE name = 'child'`,
  );
  expect(await settle()).toMatchObject({ resolved: 1_500, unresolved: 0 });
  const told = await database.query(`SELECT outcome, jsonb_array_length(detail->'jobs') AS count FROM audit ORDER BY seq`);
  expect(told).toEqual([
    { outcome: 'unknown', count: 1_500 },
    { outcome: 'done', count: 1_500 },
  ]);
});

test('a dry run says what the policies would do, and its daemon takes no turn from those who act', async () => {
  const { boss, url, database, run, stateOf } = await createFlows();
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  await run('parent', 'fail');
  const env = { RECLAIMD_WORKFLOW_POLICIES: 'parent=cancel-children', RECLAIMD_RECONCILE_INTERVAL: '500ms' };
  const dry = await startTestDaemon(url, { ...env, RECLAIMD_DRY_RUN: 'true', RECLAIMD_LISTEN: '127.0.0.1:0' });
  await passesOf('flows', dry.url);
  expect(await database.query(`SELECT name FROM turn WHERE name LIKE 'flows%'`)).toEqual([]);
  const printed: string[] = [];
  const surroundings = {
    env: { DATABASE_URL: url, ...env },
    out: (text: string) => printed.push(text),
    signal: new AbortController().signal,
  };
  await createProgram(surroundings, '0', () => undefined).parseAsync(['reconcile', '--dry-run'], { from: 'user' });
  expect(printed.join('\n')).toContain('would be: flows: stuck 1, unresolved 0, resolved 0, parents retried 0, jobs cancelled 2');
  expect(await stateOf(ids['child'] ?? '')).toMatchObject({ state: 'created' });
  expect(await stuckIncidents(database)).toEqual([]);
});

test('a retried parent resolves the incident; children that retention took keep it open until somebody has seen it', async () => {
  const { boss, database, settle, run, stateOf } = await createFlows();
  const ids = (await chainOfThree(boss)) as Record<string, string>;
  const parent = await run('parent', 'fail');
  await settle();
  await boss.retry('parent', parent);
  expect((await settle()).incidents.resolved).toEqual([{ class: 'workflow_stuck', count: 1 }]);
  await run('parent', 'fail');
  await settle();
  await database.query(`UPDATE job SET keep_until = now() - interval '1 day' WHERE blocked`);
  await database.query('UPDATE queue SET maintain_on = NULL');
  await boss.supervise();
  expect(await stateOf(ids['child'] ?? '')).toBeUndefined();
  await settle();
  const [incident] = await stuckIncidents(database);
  expect((await readIncident(database, incident?.id ?? ''))?.evidence).toMatchObject({ children: [`child/${ids['child']}`] });
  await database.query('UPDATE incident SET acknowledged_at = now()');
  await settle();
  expect(await stuckIncidents(database)).toEqual([]);
});

test('wide, deep and in tables of their own: every job of the chain is counted, and cancelled', async () => {
  const { boss, database, url, settle, run } = await createFlows(
    {},
    { queues: [{ name: 'parent', retryLimit: 0, partition: true }, { name: 'child', partition: true }, { name: 'grandchild' }] },
  );
  const wide = Array.from({ length: 1_000 }, (_, index) => ({ ref: `w${index}`, name: 'child', dependsOn: ['root'] }));
  const deep = Array.from({ length: 1_000 }, (_, index) => ({
    ref: `d${index}`,
    name: 'grandchild',
    dependsOn: [index === 0 ? 'w0' : `d${index - 1}`],
  }));
  await boss.flow([{ ref: 'root', name: 'parent' }, ...wide, ...deep]);
  await database.query('ANALYZE');
  await run('parent', 'fail');
  await settle();
  expect(await stuckIncidents(database)).toMatchObject([{ affected: 2_000 }]);
  const cancelling = await openTestContext(url, { RECLAIMD_WORKFLOW_POLICIES: 'parent=cancel-children' });
  expect(await settleFlows(cancelling.flowDependencies(false))).toMatchObject({ cancelled: 2_000, flows: [] });
  expect(await stuckIncidents(database)).toEqual([]);
});

test('a thousand children that each wait for two hundred failed parents: every parent has its incident, with all of them', async () => {
  const { boss, database, url, context, run } = await createFlows();
  await chainOfThree(boss);
  await run('parent', 'fail');
  await addAllToAll(database, 200, 1_000);
  const dependencies = context.flowDependencies(false);
  const rows: number[] = [];
  const listStuck: typeof dependencies.flows.listStuck = async (...question) => {
    const found = await dependencies.flows.listStuck(...question);
    rows.push(found.length);
    return found;
  };
  const report = await settleFlows({ ...dependencies, flows: { ...dependencies.flows, listStuck } });
  expect(report).toMatchObject({ complete: true, incidents: { opened: [{ class: 'workflow_stuck', count: 201 }] } });
  expect(Math.max(...rows)).toBeLessThan(25_000);
  const counts = await database.query('SELECT affected, count(*)::int AS incidents FROM incident GROUP BY 1 ORDER BY 1');
  expect(counts).toEqual([
    { affected: 2, incidents: 1 },
    { affected: 1_000, incidents: 200 },
  ]);
  const cancelling = await openTestContext(url, { RECLAIMD_WORKFLOW_POLICIES: 'parent=cancel-children' });
  expect(await settleFlows(cancelling.flowDependencies(false))).toMatchObject({ cancelled: 1_002, flows: [], failures: [] });
  expect(await database.query('SELECT FROM stuck_job')).toEqual([]);
}, 400_000);

test('a flow that another look finds while this one is under way keeps its incident, and what is remembered of it', async () => {
  const { boss, database, context, settle, run } = await createFlows();
  await chainOfThree(boss);
  await run('parent', 'fail');
  await settle();
  const dependencies = context.flowDependencies(false);
  let looked = false;
  const slow: typeof database = {
    ...dependencies.database,
    transaction: async (work) => {
      if (!looked) {
        looked = true;
        await chainOfThree(boss);
        await run('parent', 'fail');
        expect((await settle()).incidents.opened).toEqual([{ class: 'workflow_stuck', count: 1 }]);
      }
      return dependencies.database.transaction(work);
    },
  };
  expect((await settleFlows({ ...dependencies, database: slow })).incidents).toEqual({ opened: [], resolved: [] });
  expect(looked).toBe(true);
  expect(await stuckIncidents(database)).toHaveLength(2);
  expect(await database.query('SELECT FROM stuck_job')).toHaveLength(4);
});

test('the daemon tells of a stuck flow, and the command too', async () => {
  const { boss, url, database, run } = await createFlows();
  await chainOfThree(boss);
  await startTestDaemon(url, { RECLAIMD_RECONCILE_INTERVAL: '500ms' });
  await run('parent', 'fail');
  await waitFor('the incident', async () => (await stuckIncidents(database)).length === 1);
  const printed: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => printed.push(text), signal: new AbortController().signal };
  await createProgram(surroundings, '0', () => undefined).parseAsync(['workflows', '--json'], { from: 'user' });
  expect(JSON.parse(printed[0] ?? '')).toMatchObject({ stuck: [{ reason: 'parent_failed', jobs: [{}, {}] }], unresolved: 0 });
});
