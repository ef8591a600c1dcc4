import { expect, test } from 'vitest';
import { listIncidents, readIncident } from '../../src/incidents/listing.ts';
import type { Database } from '../../src/postgres/database.ts';
import { completeAttempt } from '../support/complete.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { chainOfThree, createFlows, type End } from '../support/flows.ts';
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
  expect(await settle(true)).toMatchObject({ resolved: 0, unresolved: 1 });
  expect(await stateOf(ids['child'] ?? '')).toMatchObject({ blocked: true });
  expect(await settle()).toMatchObject({ resolved: 1, unresolved: 0, flows: [] });
  expect(await stateOf(ids['child'] ?? '')).toMatchObject({ blocked: false });
  expect(await database.query(`SELECT FROM audit WHERE action = 'workflow_resolve'`)).toHaveLength(1);
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
  expect((await settle()).flows).toMatchObject([{ parent: null, reason: 'parent_gone', children: [{ jobId: ids['c'] }] }]);
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

test('wide, deep and in tables of their own: every job of the chain is counted', async () => {
  const { boss, database, settle, run } = await createFlows(
    {},
    { queues: [{ name: 'parent', retryLimit: 0, partition: true }, { name: 'child', partition: true }, { name: 'grandchild' }] },
  );
  const wide = Array.from({ length: 1_000 }, (_, index) => ({ ref: `w${index}`, name: 'child', dependsOn: ['root'] }));
  const deep = Array.from({ length: 200 }, (_, index) => ({
    ref: `d${index}`,
    name: 'grandchild',
    dependsOn: [index === 0 ? 'w0' : `d${index - 1}`],
  }));
  await boss.flow([{ ref: 'root', name: 'parent' }, ...wide, ...deep]);
  await run('parent', 'fail');
  await settle();
  expect(await stuckIncidents(database)).toMatchObject([{ affected: 1_200 }]);
});

test('the daemon tells of a stuck flow, and the command too', async () => {
  const { boss, url, database, run } = await createFlows();
  await chainOfThree(boss);
  await startTestDaemon(url, { RECLAIMD_RECONCILE_INTERVAL: '500ms' });
  await run('parent', 'fail');
  await waitFor('the incident', async () => (await stuckIncidents(database)).length === 1);
  const { createProgram } = await import('../../src/cli/program.ts');
  const printed: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => printed.push(text), signal: new AbortController().signal };
  await createProgram(surroundings, '0', () => undefined).parseAsync(['workflows', '--json'], { from: 'user' });
  expect(JSON.parse(printed[0] ?? '')).toMatchObject({ stuck: [{ reason: 'parent_failed', jobs: [{}, {}] }], unresolved: 0 });
});
