import { expect, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { asPgBossDb } from '../../src/pgboss/client.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair, type RepairPreview, type RepairRefused } from '../../src/repairs/preview.ts';
import type { BossOptions } from '../support/database.ts';
import { chainOfThree, createFlows } from '../support/flows.ts';
import { meanwhile } from '../support/meanwhile.ts';

const ANN = 'ann@desk';

async function setUp(options: BossOptions = {}) {
  const fleet = await createFlows({}, options);
  const ids = (await chainOfThree(fleet.boss)) as Record<string, string>;
  const dependencies = fleet.context.repairDependencies();
  return {
    ...fleet,
    child: `child/${ids['child']}`,
    grandchild: `grandchild/${ids['grandchild']}`,
    preview: (action: string, target: string) => previewRepair(dependencies, { action, targets: [target], actor: ANN }),
    execute: (token: string) => executeRepair(dependencies, { token, actor: ANN, reason: 'the file is there now' }),
    audit: () => fleet.database.query('SELECT actor, action, target, outcome FROM audit ORDER BY seq'),
  };
}

function tokenOf(result: RepairPreview | RepairRefused): string {
  if (!result.done || result.token === null) throw new Error(JSON.stringify(result));
  return result.token;
}

test('the parent is tried again, as it was shown, and audited once', async () => {
  const { run, preview, execute, stateOf, audit } = await setUp();
  const parent = await run('parent', 'fail');
  const shown = await preview('workflow_retry_parent', `parent/${parent}`);
  expect(shown).toMatchObject({
    plan: { flow: { state: 'failed', jobs: [`parent/${parent}`], after: 'retry', warnings: ['2 jobs wait behind it'] } },
  });
  expect(await execute(tokenOf(shown))).toMatchObject({
    done: true,
    targets: [{ target: `parent/${parent}`, outcome: 'done', state: 'retry' }],
  });
  expect(await stateOf(parent)).toMatchObject({ state: 'retry' });
  expect(await audit()).toEqual([{ actor: ANN, action: 'workflow_retry_parent', target: `parent/${parent}`, outcome: 'done' }]);
});

test('a parent whose place another job has taken cannot be tried again now', async () => {
  const queues = [{ name: 'parent', retryLimit: 0, policy: 'exclusive' as const }, { name: 'child' }, { name: 'grandchild' }];
  const { boss, run, preview } = await setUp({ queues });
  const parent = await run('parent', 'fail');
  const holder = await boss.send('parent', {});
  expect(await preview('workflow_retry_parent', `parent/${parent}`)).toMatchObject({
    refused: 'impossible',
    message: expect.stringContaining(`parent/${holder} has the only place`),
  });
  await boss.cancel('parent', holder ?? '');
  expect(await preview('workflow_retry_parent', `parent/${parent}`)).toMatchObject({ done: true });
});

test('everything behind a parent is cancelled, or nothing where it has changed meanwhile', async () => {
  const { boss, run, child, grandchild, preview, execute, stateOf, audit } = await setUp();
  const parent = await run('parent', 'fail');
  const shown = await preview('workflow_cancel_descendants', `parent/${parent}`);
  const warnings = ['2 jobs wait behind it, and end with this'];
  expect(shown).toMatchObject({ plan: { flow: { jobs: [child, grandchild], after: 'cancelled', warnings } } });
  expect(await preview('workflow_cancel_descendants', child)).toMatchObject({
    plan: { flow: { warnings: ['1 job waits behind it, and ends with this'] } },
  });
  await boss.retry('parent', parent);
  expect(await execute(tokenOf(shown))).toMatchObject({ refused: 'drifted', message: expect.stringContaining('nothing waits in vain') });
  expect(await stateOf(child.split('/')[1] ?? '')).toMatchObject({ state: 'created' });
  await run('parent', 'fail');
  expect(await execute(tokenOf(await preview('workflow_cancel_descendants', `parent/${parent}`)))).toMatchObject({
    done: true,
    targets: [{ target: child }, { target: grandchild }],
  });
  expect(await stateOf(grandchild.split('/')[1] ?? '')).toMatchObject({ state: 'cancelled' });
  expect((await audit()).map((event) => (event as { outcome: string }).outcome)).toEqual(['drifted', 'done']);
});

test('a job behind it that somebody cancels meanwhile is waited for, and then nothing is done: it is not as it was shown', async () => {
  const { boss, database, run, grandchild, child, preview, execute, stateOf } = await setUp();
  const parent = await run('parent', 'fail');
  const token = tokenOf(await preview('workflow_cancel_descendants', `parent/${parent}`));
  const { waited, result } = await meanwhile(
    database,
    (tx) => boss.cancel('grandchild', grandchild.split('/')[1] ?? '', { db: asPgBossDb(tx) }),
    () => execute(token),
  );
  expect([waited, result]).toMatchObject([true, { refused: 'drifted', message: expect.stringContaining('1 gone, 0 new') }]);
  expect(await stateOf(child.split('/')[1] ?? '')).toMatchObject({ state: 'created' });
});

test('one child runs without its parent', async () => {
  const { run, child, preview, execute, stateOf } = await setUp();
  expect(await preview('workflow_unblock', child)).toMatchObject({
    refused: 'impossible',
    message: expect.stringContaining('not waiting in vain'),
  });
  await run('parent', 'fail');
  expect(await execute(tokenOf(await preview('workflow_unblock', child)))).toMatchObject({ done: true });
  expect(await stateOf(child.split('/')[1] ?? '')).toMatchObject({ blocked: false });
});

test('what keeps a job from running although it may is told before', async () => {
  const { boss, database, run, child, preview, stateOf } = await setUp();
  const id = await run('parent', 'fail');
  const warningsOf = async (action: string, target: string) => {
    const shown = await preview(action, target);
    if (!shown.done) throw new Error(shown.message);
    return [...shown.plan.jobs, ...(shown.plan.flow ? [shown.plan.flow] : [])].flatMap(({ warnings }) => warnings).join('\n');
  };
  const repairs: [string, string][] = [
    ['job_retry', `parent/${id}`],
    ['workflow_retry_parent', `parent/${id}`],
    ['workflow_unblock', child],
  ];
  for (const repair of repairs) expect(await warningsOf(...repair)).not.toMatch(/retention|stays blocked/);
  await database.query(`UPDATE job SET keep_until = now() + interval '10 minutes'`);
  for (const repair of repairs) expect(await warningsOf(...repair)).toMatch(/retention deletes it in \d+ min/);
  await database.query(`UPDATE job SET keep_until = now() - interval '1 s'`);
  for (const repair of repairs) expect(await warningsOf(...repair)).toContain('retention deletes it at its next pass');
  await boss.cancel('child', child.split('/')[1] ?? '');
  for (const action of ['job_retry', 'workflow_retry_parent']) expect(await warningsOf(action, child)).toContain('it stays blocked');
  // So it is.
  await boss.resume('child', child.split('/')[1] ?? '');
  expect(await stateOf(child.split('/')[1] ?? '')).toMatchObject({ state: 'created', blocked: true });
  await boss.retry('parent', id);
  await database.query('UPDATE queue SET maintain_on = NULL');
  await boss.supervise();
  expect(await stateOf(id)).toBeUndefined();
});

test('a parent behind which less waits than was shown is not tried again, nor a job that is not blocked any more', async () => {
  const { boss, database, run, child, grandchild, preview, execute, stateOf } = await setUp();
  const id = await run('parent', 'fail');
  const [childId = '', grandchildId = ''] = [child, grandchild].map((name) => name.split('/')[1]);
  const parent = tokenOf(await preview('workflow_retry_parent', `parent/${id}`));
  await boss.cancel('grandchild', grandchildId);
  expect(await execute(parent)).toMatchObject({ refused: 'drifted', message: expect.stringContaining('behind it have changed: 1 gone') });
  expect(await stateOf(id)).toMatchObject({ state: 'failed' });
  const job = tokenOf(await preview('job_retry', grandchild));
  await database.query('UPDATE job SET blocked = false WHERE id = $1', [grandchildId]);
  expect(await execute(job)).toMatchObject({ refused: 'drifted', message: expect.stringContaining('it is blocked was yes, is no') });
  expect(await stateOf(grandchildId)).toMatchObject({ state: 'cancelled' });
  expect(await stateOf(childId)).toMatchObject({ blocked: true });
});

test('the command shows each waiting job as blocked, and a parent as it is', async () => {
  const { url, run, child, grandchild } = await setUp();
  const parent = `parent/${await run('parent', 'fail')}`;
  const shown = async (action: string, target: string) => {
    const printed: string[] = [];
    const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => printed.push(text), signal: new AbortController().signal };
    await createProgram(surroundings, '0', () => undefined).parseAsync(['preview', action, target], { from: 'user' });
    return printed.join('\n');
  };
  const behind = await shown('workflow_cancel_descendants', child);
  expect(behind).toMatch(new RegExp(`${child} +blocked +cancelled`));
  expect(behind).toMatch(new RegExp(`${grandchild} +blocked +cancelled`));
  expect(await shown('workflow_unblock', child)).toMatch(new RegExp(`${child} +blocked +free`));
  expect(await shown('workflow_retry_parent', parent)).toMatch(new RegExp(`${parent} +failed +retry`));
});

test.each([
  ['workflow_retry_parent', 'parent/00000000-0000-0000-0000-000000000000', 'nothing waits in vain'],
  ['workflow_retry_parent', 'parent', 'no QUEUE/JOB-ID'],
  ['workflow_unblock', 'child/00000000-0000-0000-0000-000000000000', 'is gone'],
])('%s of %s is refused: %s', async (action, target, why) => {
  const { preview } = await setUp();
  expect(await preview(action, target)).toMatchObject({ done: false, message: expect.stringContaining(why) });
});
