import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import { appendAudit } from '../../src/audit/append.ts';
import { type AuditFilter, listAudit } from '../../src/audit/queries.ts';
import { type ListOptions, list } from '../../src/cli/audit.ts';
import { listIncidents, readIncident } from '../../src/incidents/listing.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair } from '../../src/repairs/preview.ts';
import { createBreakingProxy } from '../support/breaking-proxy.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext, sweepOnce } from '../support/executor.ts';
import { createFlows } from '../support/flows.ts';
import { waitFor } from '../support/wait.ts';

const ANN = 'ann@desk';
const EVENT = { actor: ANN, action: 'policy_set', target: 'mail', outcome: 'done', reason: null, node: 'desk', detail: {} } as const;

/** `audit list --follow` as it runs beside what is appended. */
async function setUpFollowing() {
  const { url, database } = await createFleetDatabase();
  const append = (target: string) => database.transaction((tx) => appendAudit(tx, { ...EVENT, target }));
  return {
    url,
    database,
    append,
    begin: async () => {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      onTestFinished(() => client.end().catch(() => undefined));
      await client.query('SET search_path = reclaimd');
      await client.query('BEGIN');
      return {
        append: (target: string) =>
          appendAudit(
            {
              query: async (text, values) => (await client.query(text, [...(values ?? [])])).rows,
              execute: async (text, values) => (await client.query(text, [...(values ?? [])])).rowCount ?? 0,
            },
            { ...EVENT, target },
          ),
        commit: () => client.query('COMMIT'),
      };
    },
    follow: (options: Partial<ListOptions> = {}, from = url) => {
      const lines: string[] = [];
      const interrupt = new AbortController();
      const surroundings = { env: { DATABASE_URL: from }, out: (text: string) => lines.push(text), signal: interrupt.signal };
      const ended = list(surroundings, { limit: '100', follow: true, ...options });
      const printed = () => lines.map((line) => (JSON.parse(line) as { target: string }).target);
      return {
        printed,
        saw: (target: string) => waitFor(`${target} to be printed`, () => printed().includes(target)),
        stop: async () => {
          interrupt.abort();
          await ended;
          return printed();
        },
      };
    },
  };
}

test('a reason hides nothing of the list: no escape sequence of it gets through', async () => {
  const { url, database } = await createFleetDatabase();
  await database.transaction((tx) => appendAudit(tx, { ...EVENT, reason: 'legit\x1b[8m and \x1b[31mred' }));
  const lines: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => lines.push(text), signal: new AbortController().signal };
  await list(surroundings, { limit: '100' });
  expect(lines.join('\n')).toContain('legit?[8m and ?[31mred');
});

test('a job is found by its id in capitals, too, as a preview takes it', async () => {
  const { url, database } = await createFleetDatabase();
  const jobId = '0d9a1c8e-5b7f-4c1d-9e2a-ab54c0ffee00';
  await database.transaction((tx) => appendAudit(tx, { ...EVENT, target: `Mail/${jobId}` }));
  const lines: string[] = [];
  const surroundings = { env: { DATABASE_URL: url }, out: (text: string) => lines.push(text), signal: new AbortController().signal };
  await list(surroundings, { limit: '100', target: `Mail/${jobId.toUpperCase()}` });
  expect(lines.join('\n')).toContain(`Mail/${jobId}`);
  expect(lines.join('\n')).not.toContain('no events');
});

test('--follow goes on after what was listed: with --since and --limit, too', async () => {
  const { database, append, follow } = await setUpFollowing();
  await database.query(
    `INSERT INTO audit (at, actor, action, target, outcome, node, detail)
     SELECT now() - interval '3 days', 'ann', 'a', 'old', 'done', 'n', '{}' FROM generate_series(1, 3)`,
  );
  for (const target of ['1', '2', '3']) await append(target);
  const since = follow({ since: '1h' });
  const limited = follow({ limit: '2' });
  await Promise.all([since.saw('3'), limited.saw('3')]);
  await append('4');
  await Promise.all([since.saw('4'), limited.saw('4')]);
  expect(await since.stop()).toEqual(['1', '2', '3', '4']);
  expect(await limited.stop()).toEqual(['2', '3', '4']);
});

test('--follow waits for a database that goes away, says so once, and goes on', async () => {
  const { url, append, follow } = await setUpFollowing();
  const proxy = await createBreakingProxy(url);
  const following = follow({}, proxy.url);
  await append('1');
  await following.saw('1');
  proxy.breakAt(1, 'before');
  await waitFor('it to be said', () => following.printed().length === 2);
  await append('2');
  proxy.mend();
  await following.saw('2');
  expect(await following.stop()).toEqual(['1', undefined, '2']);
});

test('--follow prints all of a burst, in order', async () => {
  const { database, append, follow } = await setUpFollowing();
  await append('first');
  const following = follow();
  await following.saw('first');
  await database.query(
    `INSERT INTO audit (actor, action, target, outcome, node, detail) SELECT 'ann', 'a', g, 'done', 'n', '{}' FROM generate_series(1, 3500) g`,
  );
  await following.saw('3500');
  expect(await following.stop()).toEqual(['first', ...Array.from({ length: 3500 }, (_, index) => String(index + 1))]);
});

test('--follow prints what commits late, once, and nothing twice', async () => {
  const { append, begin, follow } = await setUpFollowing();
  const before = await begin();
  await before.append('late, from before');
  await append('first');
  const following = follow();
  const goesOn = async (...targets: string[]) => {
    for (const target of targets) {
      await append(target);
      await following.saw(target);
    }
  };
  await following.saw('first');
  await goesOn('a', 'b');
  const late = await begin();
  await late.append('late');
  await goesOn('c');
  await before.commit();
  await following.saw('late, from before');
  // What was under way at an earlier look has ended, and its numbers are settled; that of a later one is not.
  await goesOn('d', 'e');
  await late.commit();
  await following.saw('late');
  // What is settled moves on over several looks: it takes nothing with it, and brings nothing back.
  await goesOn('f', 'g', 'h', 'i');
  const seen = ['first', 'a', 'b', 'c', 'late, from before', 'd', 'e', 'late', 'f', 'g', 'h', 'i'];
  expect(await following.stop()).toEqual(seen);
});

test("an event is found by each job that it was about, whoever did it, and so it is in the job's incident", async () => {
  const fleet = await createFleetDatabase({ queues: [{ name: 'mail' }] });
  const { url, database } = fleet;
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const begin = async (executorId: string, count: number) => {
    const executor = await createExecutor(url, database, executorId);
    await fleet.boss.insert(
      'mail',
      Array.from({ length: count }, () => ({})),
    );
    return { executor, ids: (await executor.fetch('mail', count)).map(({ id }) => id) };
  };
  const found = async (target: string, filter: Partial<AuditFilter> = {}) =>
    (await listAudit(database, { target, limit: 10, ...filter })).map(({ action, outcome }) => `${action} ${outcome}`);
  const dependencies = (await openTestContext(url)).repairDependencies();
  const repair = async (action: string, targets: string[], policy?: string) => {
    const shown = await previewRepair(dependencies, { action, targets, actor: ANN, policy });
    if (!shown.done || shown.token === null) throw new Error(JSON.stringify(shown));
    return executeRepair(dependencies, { token: shown.token, actor: ANN, reason: 'long enough a reason' });
  };

  const held = await begin('e1', 2);
  await held.executor.die();
  await sweepOnce(url, { RECLAIMD_POLICY: 'hold' });
  await repair(
    'job_rescue',
    held.ids.map((id) => `mail/${id}`),
    'fail',
  );
  for (const id of held.ids) expect(await found(`mail/${id}`)).toEqual(['sweep done', 'job_rescue done']);
  const { incidents } = await listIncidents(database, { class: 'held_orphan' });
  expect(incidents).toHaveLength(2);
  for (const { id } of incidents)
    expect((await readIncident(database, id))?.audit).toMatchObject([{ action: 'sweep' }, { action: 'job_rescue', target: 'mail' }]);

  const rescued = await begin('e2', 2);
  await rescued.executor.die();
  await repair('executor_rescue', ['e2']);
  for (const target of ['e2', ...rescued.ids.map((id) => `mail/${id}`)]) expect(await found(target)).toContain('executor_rescue done');
  expect(await found('e2', { action: 'sweep' })).toEqual([]);
  expect(await found('e1')).toEqual(['sweep done', 'job_rescue done']);
  expect(await found(`mail/${crypto.randomUUID()}`)).toEqual([]);
});

test("a workflow's event is found by the jobs that it cancelled", async () => {
  const { database, boss, run, context } = await createFlows();
  await boss.flow([
    { ref: 'parent', name: 'parent' },
    { ref: 'child', name: 'child', dependsOn: ['parent'] },
  ]);
  const parent = await run('parent', 'fail');
  const [child] = await boss.findJobs('child');
  const dependencies = context.repairDependencies();
  const asked = { action: 'workflow_cancel_descendants', targets: [`parent/${parent}`], actor: ANN };
  const shown = await previewRepair(dependencies, asked);
  const token = shown.done ? (shown.token ?? '') : '';
  expect(await executeRepair(dependencies, { token, actor: ANN, reason: 'long enough a reason' })).toMatchObject({ done: true });
  expect(await listAudit(database, { target: `child/${child?.id}`, limit: 10 })).toMatchObject([{ action: 'workflow_cancel_descendants' }]);
});

test('names are looked up in an index', async () => {
  const { database } = await createFleetDatabase();
  await database.query(
    `INSERT INTO audit (actor, action, target, outcome, node, detail)
     SELECT 'ann', 'sweep', 'mail', 'done', 'n', jsonb_build_object('effects', jsonb_build_array(jsonb_build_object('attempts', jsonb_build_array(g || ':0'))))
     FROM generate_series(1, 5000) g`,
  );
  await database.query('VACUUM ANALYZE audit');
  const plan = await database.query<Record<string, string>>(
    `EXPLAIN SELECT seq FROM audit WHERE audit_names(target, detail) @> ARRAY['mail/77'] ORDER BY seq DESC LIMIT 100`,
  );
  expect(plan.map((row) => row['QUERY PLAN']).join('\n')).toContain('audit_named');
});
