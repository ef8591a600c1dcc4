import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { sealAudit } from '../../src/audit/chain.ts';
import * as command from '../../src/cli/retention.ts';
import { variablesTable } from '../../src/config.ts';
import { readLookTime } from '../../src/incidents/incident.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { rotateOwnership } from '../../src/ownership/rotate.ts';
import type { Database, Sql } from '../../src/postgres/database.ts';
import { projectBehind } from '../../src/retention/behind.ts';
import { isDue, RECORD_CLASSES, type RecordName } from '../../src/retention/classes.ts';
import { type PruneDependencies, type PruneOrder, type PruneResult, runArchivePrune } from '../../src/retention/prune.ts';
import { retentionStatus } from '../../src/retention/status.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { addDueRecoveries, createArchiveDirectory } from '../support/archive.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';

const ORDER = { actor: 'ann@desk', reason: 'the disk is full' };
const DAY = 86_400;
/** One row of each class that became history so many seconds ago. */
const ROWS: Record<Exclude<RecordName, 'attempts'>, string> = {
  recoveries: `INSERT INTO recovery (queue, job_id, retry_count, verdict, policy, policy_source, outcome, reason, node, recovered_at)
    VALUES ('q', gen_random_uuid(), 0, 'dead', 'fail', 'default', 'failed', 'r', 'n', AGO)`,
  executors: `INSERT INTO executor (id, kind, beat_seconds, started_at, beat_at) VALUES (gen_random_uuid()::text, 'own', 1, AGO, AGO)`,
  nodes: `INSERT INTO node (node, daemon_id, host, pid, version, beat_at) VALUES (gen_random_uuid()::text, gen_random_uuid(), 'h', 1, '0', AGO)`,
  daemons: `INSERT INTO daemon (id, beat_at) VALUES (gen_random_uuid(), AGO)`,
  incidents: `INSERT INTO incident (class, fingerprint, summary, evidence, resolved_at) VALUES ('poison_job', gen_random_uuid()::text, 's', '{}', AGO)`,
  previews: `INSERT INTO repair_preview (actor, action, request, plan, plan_hash, node, expires_at) VALUES ('a', 'job_retry', '{}', '{}', gen_random_uuid()::text, 'n', AGO)`,
  heals: `INSERT INTO unit_action (host, unit, node, action, actor, automatic, lease_until, outcome, ended_at) VALUES ('h', 'u', 'n', 'unit_heal', 'a', true, AGO, 'done', AGO)`,
  unit_lives: `INSERT INTO unit_life (host, unit, invocation, restarts, seen_at) VALUES ('h', 'u', gen_random_uuid()::text, 0, AGO)`,
  crashes: `INSERT INTO unit_crash (executor_id, host, node, unit, invocation, result, exit_status, attempts, attempt_count, crashed_at)
    VALUES (gen_random_uuid()::text, 'h', 'n', 'u', 'i', 'signal', 9, '[]', 0, AGO)`,
  commands: `INSERT INTO node_command (node, action, unit, actor, take_by, outcome, ended_at) VALUES ('n', 'look', 'u', 'a', AGO, 'done', AGO)`,
  workflows: `INSERT INTO workflow_instance (id, workflow, state, updated_at) VALUES (gen_random_uuid()::text, 'w', 'completed', AGO)`,
  workflow_actions: `INSERT INTO workflow_action (queue, job_id, action, acted_at) VALUES ('q', gen_random_uuid(), 'retry', AGO)`,
  runs: `INSERT INTO retention_run (node, actor, started_at, ended_at) VALUES ('n', 'a', AGO, AGO)`,
  audit: `INSERT INTO audit (at, actor, action, target, outcome, node, detail) VALUES (AGO, 'a', 'job_retry', 'q/1', 'done', 'n', '{}')`,
  restored: `INSERT INTO restored (file, line, class, record, restored_at) VALUES (gen_random_uuid()::text, 1, 'heals', '{}', AGO)`,
  archive: `INSERT INTO archive (class, record, archived_at) VALUES ('recoveries', '{}', AGO)`,
};

const add = (database: Database, name: Exclude<RecordName, 'attempts'>, secondsAgo: number) =>
  database.query(ROWS[name].replaceAll('AGO', `now() - make_interval(secs => ${secondsAgo})`));
const count = async (database: Database, table: string) => (await database.query(`SELECT FROM ${table}`)).length;

/** One run that nothing keeps from running. */
async function prune(dependencies: PruneDependencies, order: PruneOrder = ORDER): Promise<PruneResult> {
  const run = await runArchivePrune(dependencies, order);
  if (!('classes' in run)) throw new Error('another run is under way');
  return run.classes;
}

async function setUp(env: Record<string, string> = {}) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'q' }] });
  const context = await openTestContext(fleet.url, env);
  return { ...fleet, dependencies: context.pruneDependencies() };
}

const PRUNED = RECORD_CLASSES.flatMap((recordClass) => (recordClass.name === 'attempts' ? [] : [[recordClass.name, recordClass] as const]));

test.each(PRUNED)(
  '%s: a second past its period goes, archived where the class says so; a minute before it stays',
  async (name, { table, archived }) => {
    const { database, dependencies } = await setUp();
    const seconds = dependencies.periods[name];
    await add(database, name, seconds + 1);
    await add(database, name, seconds - 60);
    await sealAudit(database);
    const before = await count(database, table);
    const result = await prune(dependencies);
    expect(result[name]).toEqual({ pruned: 1, archived: archived ? 1 : 0, left: false });
    // The run itself is a row of its ledger, and an event of the audit.
    expect(await count(database, table)).toBe(before - 1 + (name === 'runs' || name === 'audit' ? 1 : 0));
    if (name !== 'archive') expect(await database.query('SELECT class FROM archive')).toEqual(archived ? [{ class: name }] : []);
    const again = await prune(dependencies);
    expect(again[name]?.pruned).toBe(0);
    expect(await database.query(`SELECT actor, reason FROM audit WHERE action = 'retention_prune'`)).toEqual([ORDER, ORDER]);
  },
);

test('finished attempts go by rotation, as soon as their period has passed', async () => {
  const { database, dependencies } = await setUp();
  await database.query(
    `INSERT INTO attempt_a (queue, job_id, retry_count, application_name, started_on)
     SELECT 'q', gen_random_uuid(), 0, 'w', now() - interval '1 hour' FROM generate_series(1, 10000)`,
  );
  const attempts = async () => (await retentionStatus(dependencies)).classes.find(({ name }) => name === 'attempts');
  const afterSeconds = dependencies.periods.attempts;
  await database.query(`UPDATE attempt_turn SET switched_at = now() - make_interval(secs => $1)`, [afterSeconds - 30]);
  expect(await rotateOwnership(database, { afterSeconds })).toBe('idle');
  await database.query(`UPDATE attempt_turn SET switched_at = now() - make_interval(secs => $1)`, [afterSeconds + 1]);
  expect(await rotateOwnership(database, { afterSeconds: Number.POSITIVE_INFINITY })).toBe('idle');
  expect(await rotateOwnership(database, { afterSeconds })).toBe('switched');
  expect(await attempts()).toMatchObject({ rows: 10_000, due: 0 });
  // A rotation that does not get on is due.
  await database.query(`UPDATE attempt_turn SET switched_at = now() - make_interval(secs => $1)`, [afterSeconds + 1]);
  expect(await attempts()).toMatchObject({ rows: 10_000, due: 10_000 });
  expect(await rotateOwnership(database, { afterSeconds })).toBe('emptied');
  expect(await attempts()).toMatchObject({ rows: 0, due: 0, oldestAt: null });
});

test.each([
  ['recoveries', 'RECLAIMD_RETAIN_RECOVERIES'],
  ['audit', 'RECLAIMD_RETAIN_AUDIT'],
  ['archive', 'RECLAIMD_RETAIN_ARCHIVE'],
] as const)('`never` keeps everything: %s', async (name, variable) => {
  const { database, dependencies } = await setUp({ [variable]: 'never' });
  await add(database, name, 10_000 * DAY);
  await sealAudit(database);
  const result = await prune(dependencies);
  expect(result[name]).toEqual({ pruned: 0, archived: 0, left: false });
  const { classes } = await retentionStatus(dependencies);
  expect(classes.find((status) => status.name === name)).toMatchObject({
    keptSeconds: null,
    due: 0,
    oldestSeconds: expect.closeTo(10_000 * DAY, -2),
  });
});

test('what is not history does not go, however old: an open incident, a running workflow, a heal under way', async () => {
  const { database, dependencies } = await setUp();
  await database.query(
    `INSERT INTO incident (class, fingerprint, summary, evidence, first_seen_at) VALUES ('poison_job', 'f', 's', '{}', now() - interval '10 years')`,
  );
  await database.query(`INSERT INTO workflow_instance (id, workflow, updated_at) VALUES ('i', 'w', now() - interval '10 years')`);
  await database.query(
    `INSERT INTO unit_action (host, unit, node, action, actor, automatic, started_at, lease_until) VALUES ('h', 'u', 'n', 'unit_heal', 'a', true, now() - interval '10 years', now())`,
  );
  const result = await prune(dependencies);
  for (const name of ['incidents', 'workflows', 'heals'] as const) expect(result[name]?.pruned).toBe(0);
});

test('the evidence of an open incident stays until it is resolved', async () => {
  const { database, dependencies } = await setUp();
  await add(database, 'recoveries', 1_000 * DAY);
  await add(database, 'crashes', 1_000 * DAY);
  await add(database, 'executors', 1_000 * DAY);
  const [recovery] = await database.query<{ job: string }>('SELECT job_id::text AS job FROM recovery');
  const [crash] = await database.query<{ id: string }>('SELECT executor_id AS id FROM unit_crash');
  const [executor] = await database.query<{ id: string }>('SELECT id FROM executor');
  await database.query(`INSERT INTO incident (class, fingerprint, summary, evidence) VALUES ('poison_job', 'f', 's', $1)`, [
    JSON.stringify({ jobId: recovery?.job, crashes: [crash?.id], executorId: executor?.id }),
  ]);
  await prune(dependencies);
  expect([await count(database, 'recovery'), await count(database, 'unit_crash'), await count(database, 'executor')]).toEqual([1, 1, 1]);
  await database.query('UPDATE incident SET resolved_at = now()');
  await prune(dependencies);
  expect([await count(database, 'recovery'), await count(database, 'unit_crash'), await count(database, 'executor')]).toEqual([0, 0, 0]);
});

test.each([
  ['heals', '{"unit": "u"}'],
  ['unit_lives', '{"unit": "u"}'],
  ['crashes', '{"unit": "u"}'],
  ['recoveries', '{"executor": "e"}'],
] as const)('%s behind an open incident, by now or in an occurrence of it, stay until it is resolved: %s', async (name, evidence) => {
  const { database, dependencies } = await setUp();
  await add(database, name, 1_000 * DAY);
  if (name === 'recoveries') await database.query(`UPDATE recovery SET executor_id = 'e'`);
  await database.query(`INSERT INTO incident (class, fingerprint, summary, evidence) VALUES ('unit_failed', 'f', 's', $1)`, [evidence]);
  expect((await prune(dependencies))[name]?.pruned).toBe(0);
  await database.query(
    `INSERT INTO incident_occurrence (incident_id, number, opening, node, summary, affected, evidence) SELECT id, 1, 1, 'n', 's', 1, evidence FROM incident`,
  );
  await database.query(`UPDATE incident SET evidence = '{}'`);
  expect((await prune(dependencies))[name]?.pruned).toBe(0);
  await database.query('UPDATE incident SET resolved_at = now()');
  expect((await prune(dependencies))[name]?.pruned).toBe(1);
});

test('that a unit was stopped in its last life is not forgotten, however long ago that began, while its host has a daemon', async () => {
  const { database, dependencies } = await setUp();
  await add(database, 'nodes', 0);
  await add(database, 'unit_lives', 1_000 * DAY);
  await add(database, 'unit_lives', 900 * DAY);
  await database.query('UPDATE unit_life SET stop_requested = true');
  expect((await prune(dependencies)).unit_lives?.pruned).toBe(1);
  expect(await database.query('SELECT stop_requested FROM unit_life')).toEqual([{ stop_requested: true }]);
  await add(database, 'unit_lives', 0);
  expect((await prune(dependencies)).unit_lives?.pruned).toBe(1);
  await database.query(`UPDATE unit_life SET stop_requested = true, seen_at = now() - interval '89 days'`);
  await database.query('DELETE FROM node');
  expect((await prune(dependencies)).unit_lives?.pruned).toBe(0);
  await database.query(`UPDATE unit_life SET seen_at = now() - interval '91 days'`);
  expect((await prune(dependencies)).unit_lives?.pruned).toBe(1);
});

interface PlanNode {
  'Parent Relationship'?: string;
  'Relation Name'?: string;
  Alias?: string;
  Plans?: PlanNode[];
}

/** The scans of incidents and of their occurrences, but for the rows `r` that are judged; and whether each is done once a statement. */
function incidentScans(node: PlanNode, inside = false): { once: boolean }[] {
  const once = inside || node['Parent Relationship'] === 'InitPlan';
  const { 'Relation Name': table, Alias: alias, Plans: below = [] } = node;
  const own = table?.startsWith('incident') && alias !== 'r' ? [{ once }] : [];
  return [...own, ...below.flatMap((child) => incidentScans(child, once))];
}

test('whatever asks whether rows may go reads the open incidents once, not for each row', async () => {
  const { database } = await setUp();
  const scans: Record<string, { once: boolean }[]> = {};
  for (const recordClass of RECORD_CLASSES) {
    const due = isDue(recordClass);
    const statements = { look: `SELECT ${due} FROM ${recordClass.table} r`, prune: `DELETE FROM ${recordClass.table} r WHERE ${due}` };
    for (const [what, statement] of Object.entries(statements)) {
      if (what === 'prune' && recordClass.removal !== 'rows') continue;
      const [row] = await database.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>(`EXPLAIN (FORMAT JSON) ${statement}`, [DAY]);
      if (row) scans[`${what} ${recordClass.name}`] = incidentScans(row['QUERY PLAN'][0].Plan);
    }
  }
  expect(Object.entries(scans).filter(([, found]) => found.some(({ once }) => !once))).toEqual([]);
  // The incidents, their occurrences, and whose these are.
  const three = [{ once: true }, { once: true }, { once: true }];
  expect(scans).toMatchObject({ 'look recoveries': three, 'prune recoveries': three, 'look crashes': three, 'prune crashes': three });
});

test('many open incidents beside much that is due keep nobody from looking', async () => {
  const { database, dependencies, connect } = await setUp();
  await addDueRecoveries(database, 200_000);
  await database.query(
    `WITH opened AS (
       INSERT INTO incident (class, fingerprint, summary, evidence)
       SELECT 'held_orphan', n::text, 's', jsonb_build_object('queue', r.queue, 'jobId', r.job_id, 'verdict', 'dead', 'executor', gen_random_uuid())
       FROM (SELECT queue, job_id, row_number() OVER () AS n FROM recovery LIMIT 1000) AS r RETURNING *
     )
     INSERT INTO incident_occurrence (incident_id, number, opening, node, summary, affected, evidence)
     SELECT id, 1, 1, 'n', summary, 1, evidence FROM opened`,
  );
  await database.query('ANALYZE');
  const { classes } = await retentionStatus({ ...dependencies, database: connect({ statementTimeoutMs: 10_000 }) });
  expect(classes.find(({ name }) => name === 'recoveries')).toMatchObject({ rows: 200_000, due: 199_000 });
});

test('an executor that still holds an attempt stays', async () => {
  const { url, boss, database, dependencies } = await setUp();
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(url, database, 'worker');
  await boss.send('q', {});
  const [job] = await executor.fetch('q');
  await executor.boss.stop({ graceful: false });
  await executor.fallSilent(100 * DAY);
  await prune(dependencies);
  expect(await count(database, 'executor')).toBe(1);
  await boss.complete('q', job?.id ?? '');
  await prune(dependencies);
  expect(await count(database, 'executor')).toBe(0);
});

test('an incident is archived with its history', async () => {
  const { database, dependencies } = await setUp();
  await add(database, 'incidents', 1_000 * DAY);
  await database.query(
    `INSERT INTO incident_occurrence (incident_id, number, opening, node, summary, affected, evidence) SELECT id, 1, 1, 'n', 'so it was', 1, '{}' FROM incident`,
  );
  await database.query(
    'INSERT INTO incident_opening (incident_id, opening, opened_at) SELECT id, n, now() FROM incident, generate_series(1, 2) n',
  );
  await prune(dependencies);
  expect(
    await database.query(
      `SELECT record->'summary' AS summary, record->'history'->0->'summary' AS history, jsonb_array_length(record->'opened') AS opened FROM archive`,
    ),
  ).toEqual([{ summary: 's', history: 'so it was', opened: 2 }]);
  expect(await count(database, 'incident_occurrence')).toBe(0);
});

const DUE_ACTIONS = `INSERT INTO workflow_action (queue, job_id, action, acted_at)
  SELECT 'q', gen_random_uuid(), 'retry', now() - interval '1 year' FROM generate_series(1, $1)`;

test('all that is due goes in one run, in many batches; out of time, the rest goes at the next', async () => {
  const { database, dependencies } = await setUp();
  await database.query(DUE_ACTIONS, [30_000]);
  const rushed = await prune({ ...dependencies, budgetMs: 0 });
  expect(rushed.workflow_actions).toEqual({ pruned: 0, archived: 0, left: true });
  // By the clock of who prunes each batch takes seconds: a few of them fit, smaller ones each time.
  let calls = 0;
  const clock = { ...systemClock, now: () => calls++ * 1_000 };
  const some = await prune({ ...dependencies, clock, budgetMs: 22_000 });
  const early = some.workflow_actions?.pruned ?? 0;
  expect(some.workflow_actions?.left).toBe(true);
  expect(early).toBeGreaterThan(0);
  expect(early).toBeLessThan(30_000);
  const done = await prune(dependencies);
  expect(done.workflow_actions).toEqual({ pruned: 30_000 - early, archived: 0, left: false });
});

/** How many pages each batch went through, in order; `delayMs`: how much later it is by the clock after each statement. */
function watchBatches({ database, ...dependencies }: PruneDependencies, delayMs = 0) {
  const sizes: number[] = [];
  let now = 0;
  const note = (text: string, values: readonly unknown[] = []) => {
    now += delayMs;
    const [from, to] = values.slice(1, 3).map((tid) => Number(/^\((\d+),0\)$/.exec(String(tid))?.[1]));
    if (text.includes('DELETE FROM') && from !== undefined && to !== undefined) sizes.push(to - from);
  };
  const watch = (tx: Sql): Sql => ({
    query: (text, values) => {
      note(text, values);
      return tx.query(text, values);
    },
    execute: (text, values) => {
      note(text, values);
      return tx.execute(text, values);
    },
  });
  const transaction: Database['transaction'] = (work) => database.transaction((tx) => work(watch(tx)));
  const clock = delayMs === 0 ? {} : { clock: { ...systemClock, now: () => now } };
  return { sizes, dependencies: { ...dependencies, ...clock, database: { ...database, transaction } } };
}

test('rows that are not due yet make no batch of those behind them larger', async () => {
  const { database, dependencies } = await setUp();
  await database.query(DUE_ACTIONS, [60_000]);
  await database.query('UPDATE workflow_action SET acted_at = now()');
  await database.query('VACUUM workflow_action');
  const [before] = await database.query<{ pages: number }>(`SELECT (pg_relation_size('workflow_action') / 8192)::int AS pages`);
  expect(before?.pages).toBeGreaterThan(500);
  await database.query(DUE_ACTIONS, [60_000]);
  await database.query('ANALYZE workflow_action');
  const { sizes, dependencies: watched } = watchBatches(dependencies);
  expect((await prune(watched)).workflow_actions).toEqual({ pruned: 60_000, archived: 0, left: false });
  // Each is at most twice as large as one before it that was full.
  expect(sizes[0]).toBe(8);
  for (const [index, size] of sizes.entries()) expect(size).toBeLessThanOrEqual(2 * Math.max(8, ...sizes.slice(0, index)));
  expect(sizes.filter((size) => size === 8).length).toBeLessThan(20);
});

test('a database that is far away, but quick, gets batches as large as one that is near', async () => {
  const { database, dependencies } = await setUp();
  await database.query(DUE_ACTIONS, [60_000]);
  await database.query('ANALYZE workflow_action');
  const { sizes, dependencies: watched } = watchBatches(dependencies, 300);
  expect((await prune(watched)).workflow_actions).toEqual({ pruned: 60_000, archived: 0, left: false });
  expect(sizes.slice(0, 4)).toEqual([8, 16, 32, 64]);
});

test('a batch that takes longer than a statement may is made smaller, until it fits', async () => {
  const { database, dependencies, connect } = await setUp();
  await addDueRecoveries(database, 1_000);
  await database.query(
    `CREATE FUNCTION reclaimd.be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$`,
  );
  await database.query(`CREATE TRIGGER slow BEFORE INSERT ON archive FOR EACH ROW EXECUTE FUNCTION reclaimd.be_slow()`);
  const hurried = connect({ statementTimeoutMs: 700 });
  const result = await prune({ ...dependencies, database: hurried });
  expect(result.recoveries).toEqual({ pruned: 1_000, archived: 1_000, left: false });
});

test('a row that somebody holds is left for the next run, and keeps no other', async () => {
  const { database, dependencies } = await setUp();
  for (let index = 0; index < 10; index++) await add(database, 'heals', 1_000 * DAY);
  const held = Promise.withResolvers<void>();
  const enough = Promise.withResolvers<void>();
  const holding = database.transaction(async (tx) => {
    await tx.query('SELECT FROM unit_action ORDER BY id LIMIT 3 FOR UPDATE');
    held.resolve();
    await enough.promise;
  });
  await held.promise;
  expect((await prune(dependencies)).heals).toEqual({ pruned: 7, archived: 7, left: false });
  enough.resolve();
  await holding;
  expect((await prune(dependencies)).heals).toEqual({ pruned: 3, archived: 3, left: false });
});

test('a batch that cannot be archived is not deleted, and keeps no other class from its turn', async () => {
  const { database, dependencies } = await setUp();
  await add(database, 'heals', 1_000 * DAY);
  await add(database, 'previews', 1_000 * DAY);
  await database.query(`ALTER TABLE archive ADD CONSTRAINT full CHECK (class <> 'heals')`.replace('full', 'disk_full'));
  const result = await prune(dependencies);
  expect(result.heals).toMatchObject({ pruned: 0, left: true, error: expect.stringContaining('disk_full') });
  expect(await count(database, 'unit_action')).toBe(1);
  expect(result.previews).toMatchObject({ pruned: 1 });
});

test('a row that cannot be archived keeps its page, and no row before or behind it', async () => {
  const { database, dependencies } = await setUp();
  await addDueRecoveries(database, 3_000);
  await database.query(`UPDATE recovery SET reason = 'cursed' WHERE ctid = (SELECT ctid FROM recovery ORDER BY ctid OFFSET 1500 LIMIT 1)`);
  await database.query(`ALTER TABLE archive ADD CONSTRAINT no_curse CHECK (record->>'reason' <> 'cursed')`);
  const { recoveries } = await prune(dependencies);
  expect(recoveries).toMatchObject({ left: true, error: expect.stringMatching(/^1 pages of recovery were passed over: .*no_curse/) });
  const left = await database.query<{ reason: string; pages: number }>(
    `SELECT bool_or(reason = 'cursed') AS cursed, count(DISTINCT (ctid::text::point)[0])::int AS pages, count(*)::int AS rows FROM recovery`,
  );
  expect(left).toEqual([{ cursed: true, pages: 1, rows: 3_000 - (recoveries?.pruned ?? 0) }]);
  expect(await count(database, 'archive')).toBe(recoveries?.pruned);
  const [event] = await database.query(
    `SELECT outcome, detail->'classes'->'recoveries' AS told FROM audit WHERE action = 'retention_prune'`,
  );
  expect(event).toEqual({ outcome: 'partial', told: recoveries });
});

test('what no row brought about stops its class at once', async () => {
  const { database, dependencies } = await setUp();
  await addDueRecoveries(database, 3_000);
  const [end] = await database.query<{ pages: number }>(`SELECT (pg_relation_size('recovery') / 8192)::int AS pages`);
  expect(end?.pages).toBeGreaterThan(20);
  await database.query(`ALTER TABLE archive ADD CONSTRAINT no_recoveries CHECK (class <> 'recoveries')`);
  const { recoveries } = await prune(dependencies);
  expect(recoveries).toEqual({ pruned: 0, archived: 0, left: true, error: expect.stringContaining('no_recoveries') });
  expect(recoveries?.error).not.toContain('passed over');
});

test('large values make small batches', async () => {
  const { database, dependencies } = await setUp();
  // Some sixty to a page, and half a megabyte each beside it.
  await database.query('ALTER TABLE incident ALTER evidence SET STORAGE EXTERNAL');
  await database.query(
    `INSERT INTO incident (class, fingerprint, summary, resolved_at, evidence)
     SELECT 'poison_job', n::text, 's', now() - interval '1000 days', jsonb_build_object('big', repeat('x', 500000)) FROM generate_series(1, 150) n`,
  );
  let most = 0;
  const watched = {
    ...database,
    transaction: <T>(work: (tx: Sql) => Promise<T>) =>
      database.transaction(async (tx) => {
        const result = await work(tx);
        const { pruned = 0 } = (result ?? {}) as { pruned?: number };
        most = Math.max(most, pruned);
        return result;
      }),
  };
  expect((await prune({ ...dependencies, database: watched })).incidents).toEqual({ pruned: 150, archived: 150, left: false });
  expect(most).toBeLessThan(100);
});

test('a run that is told to stop ends after its batch, is recorded and audited, and the next one goes on', async () => {
  const { database, dependencies } = await setUp();
  await database.query(DUE_ACTIONS, [30_000]);
  const stopping = new AbortController();
  const clock = { ...systemClock, sleep: async () => stopping.abort() };
  const stopped = await prune({ ...dependencies, clock }, { ...ORDER, signal: stopping.signal });
  const gone = stopped.workflow_actions?.pruned ?? 0;
  expect(gone).toBeLessThan(30_000);
  expect(stopped.workflow_actions?.left).toBe(true);
  expect(await database.query('SELECT ended_at IS NOT NULL AS ended, result FROM retention_run')).toEqual([
    { ended: true, result: stopped },
  ]);
  expect(await database.query('SELECT actor, outcome FROM audit')).toEqual([{ actor: ORDER.actor, outcome: 'done' }]);
  expect((await prune(dependencies)).workflow_actions).toEqual({ pruned: 30_000 - gone, archived: 0, left: false });
});

test('one run at a time: who comes meanwhile is told; a run that stood still for its lease gives way and does nothing more', async () => {
  const { database, dependencies } = await setUp();
  await database.query(DUE_ACTIONS, [20_000]);
  let told: unknown;
  let stoodStill = false;
  const clock = {
    ...systemClock,
    sleep: async () => {
      if (stoodStill) return;
      stoodStill = true;
      told = await runArchivePrune(dependencies, { actor: 'bob@desk', reason: null });
      await database.query(`UPDATE retention_run SET lease_until = now() - interval '1 second'`);
      expect((await prune(dependencies)).workflow_actions).toMatchObject({ left: false });
    },
  };
  await expect(runArchivePrune({ ...dependencies, clock }, ORDER)).rejects.toThrow('stood still for longer than its lease');
  expect(told).toMatchObject({ underWay: { actor: 'ann@desk', node: 'test' } });
  expect(await count(database, 'workflow_action')).toBe(0);
  // What it had done until then was recorded with it, and audited by the run that followed.
  const events = await database.query(
    `SELECT outcome, detail->'brokeOff' AS broke, (detail->'classes'->'workflow_actions'->>'pruned')::int > 0 AS pruned FROM audit ORDER BY seq`,
  );
  expect(events).toEqual([
    { outcome: 'unknown', broke: true, pruned: true },
    { outcome: 'done', broke: null, pruned: true },
  ]);
});

test('a scheduled run is done once in the fleet; one that broke off is taken up, by whoever comes', async () => {
  const { database, dependencies } = await setUp();
  const scheduled = (node: string, dueForSeconds: number) =>
    runArchivePrune({ ...dependencies, node }, { actor: `reclaimd@${node}`, reason: null, dueForSeconds });
  expect(await scheduled('a', 0)).toHaveProperty('classes');
  expect(await scheduled('b', 20)).toMatchObject({ done: { node: 'a' } });
  // The schedule's next time.
  await database.query(`UPDATE retention_run SET started_at = started_at - interval '1 hour'`);
  expect(await scheduled('b', 0)).toHaveProperty('classes');
  await database.query(`UPDATE retention_run SET ended_at = NULL WHERE node = 'b'`);
  expect(await scheduled('a', 60)).toMatchObject({ underWay: { node: 'b' } });
  await database.query(`UPDATE retention_run SET lease_until = now() - interval '1 second' WHERE node = 'b'`);
  expect(await scheduled('a', 90)).toHaveProperty('classes');
  // What a person has asked for is not the schedule's.
  await database.query(`UPDATE retention_run SET started_at = started_at - interval '1 hour'`);
  await prune(dependencies);
  expect(await scheduled('b', 0)).toHaveProperty('classes');
});

test('a scheduled run that failed somewhere is not done for the others: each node that comes tries once, until one has done it', async () => {
  const { database, dependencies } = await setUp();
  const directory = await createArchiveDirectory();
  const scheduled = (node: string, archiveDirectory: string, dueForSeconds: number) =>
    runArchivePrune({ ...dependencies, node, archiveDirectory }, { actor: `reclaimd@${node}`, reason: null, dueForSeconds });
  const missing = join(directory, 'missing');
  const nextTime = () => database.query(`UPDATE retention_run SET started_at = started_at - interval '1 day'`);
  const failed = { classes: { recoveries: { pruned: 0, left: true, error: expect.stringContaining('nothing can be archived') } } };
  await addDueRecoveries(database, 10);
  for (let day = 1; day <= 2; day++) {
    expect(await scheduled('a', missing, 0)).toMatchObject(failed);
    expect(await scheduled('b', missing, 60)).toMatchObject(failed);
    expect(await scheduled('a', missing, 70)).toMatchObject({ done: { node: 'a' } });
    expect(await scheduled('b', missing, 80)).toMatchObject({ done: { node: 'b' } });
    await nextTime();
  }
  expect(await scheduled('a', missing, 0)).toMatchObject(failed);
  expect(await scheduled('b', directory, 60)).toMatchObject({ classes: { recoveries: { pruned: 10, archived: 10, left: false } } });
  for (const node of ['a', 'b', 'c']) expect(await scheduled(node, directory, 120)).toHaveProperty('done');
  // One that only ran out of its time has failed nowhere: the next run goes on.
  await nextTime();
  await addDueRecoveries(database, 10);
  const order = { actor: 'reclaimd@a', reason: null, dueForSeconds: 0 };
  expect(await runArchivePrune({ ...dependencies, node: 'a', budgetMs: 0 }, order)).toMatchObject({
    classes: { recoveries: { pruned: 0, left: true } },
  });
  expect(await scheduled('b', directory, 60)).toMatchObject({ done: { node: 'a' } });
});

test('connections that break do not end a run', async () => {
  const { database, dependencies, connect } = await setUp();
  await database.query(DUE_ACTIONS, [30_000]);
  const killer = connect();
  let breaks = 2;
  const clock = {
    ...systemClock,
    sleep: async () => {
      if (breaks-- > 0)
        await killer.query(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`,
        );
    },
  };
  const { workflow_actions: result } = await prune({ ...dependencies, clock });
  expect(breaks).toBeLessThan(0);
  expect(result).toEqual({ pruned: 30_000, archived: 0, left: false });
});

test('what an open incident holds back is not behind', async () => {
  const { database, dependencies } = await setUp();
  await add(database, 'heals', 10 * dependencies.periods.heals);
  await add(database, 'audit', 10 * dependencies.periods.audit);
  await database.query(
    `INSERT INTO incident (class, fingerprint, summary, evidence, opened_at) VALUES ('unit_flapping', 'f', 's', '{"unit": "u"}', now() - interval '20 years')`,
  );
  const lookedAt = await readLookTime(database);
  const { classes } = await retentionStatus(dependencies);
  expect(classes.filter(({ due }) => due > 0)).toEqual([]);
  await projectBehind(database, 'test', classes, lookedAt);
  expect(await count(database, `incident WHERE class = 'retention_behind'`)).toBe(0);
  expect((await prune(dependencies)).heals).toMatchObject({ pruned: 0 });
});

test('an incident says which class is behind, until it has caught up', async () => {
  const { database, dependencies } = await setUp();
  const look = async () => {
    const lookedAt = await readLookTime(database);
    return projectBehind(database, 'test', (await retentionStatus(dependencies)).classes, lookedAt);
  };
  await add(database, 'heals', 1.5 * dependencies.periods.heals);
  await look();
  expect(await count(database, 'incident WHERE resolved_at IS NULL')).toBe(0);
  await add(database, 'heals', 2.5 * dependencies.periods.heals);
  await look();
  expect(await database.query('SELECT fingerprint, affected FROM incident WHERE resolved_at IS NULL')).toEqual([
    { fingerprint: 'retention_behind:heals', affected: 2 },
  ]);
  await prune(dependencies);
  await look();
  expect(await count(database, 'incident WHERE resolved_at IS NULL')).toBe(0);
});

test('the commands: status shows each class, prune wants a reason, and is audited by the name of who asked', async () => {
  const { url, database } = await setUp();
  await add(database, 'heals', 1_000 * DAY);
  const lines: string[] = [];
  const surroundings = {
    env: { DATABASE_URL: url, RECLAIMD_SYSTEMD: 'off' },
    out: (text: string) => lines.push(text),
    signal: new AbortController().signal,
  };
  await command.showStatus(surroundings, {});
  expect(lines.join('\n')).toMatch(/^heals\s+90d\s+yes\s+1\s+\d+ kB\s+1000d\s+1\s+-$/m);
  expect(lines.join('\n')).toMatch(/no run yet\nnext run: \d{4}-\d\d-\d\dT\d\d:17:00\.000Z$/);
  await expect(command.prune(surroundings, { actor: 'ann@desk', reason: 'short' })).rejects.toThrow('--reason');
  lines.length = 0;
  expect(await command.prune(surroundings, ORDER)).toBe(0);
  expect(lines.join('\n')).toMatch(/^heals\s+1\s+1\s+done$/m);
  expect(await database.query('SELECT actor, reason FROM audit')).toEqual([ORDER]);
});

test("the README's table of records is the code's", () => {
  const rows = RECORD_CLASSES.map(({ name, archived }) => {
    const variable = `RECLAIMD_RETAIN_${name.toUpperCase()}`;
    const [, usual, least] = new RegExp(`\`${variable}\` \\| \`(\\w+)\` .* at least (\\w+)`).exec(variablesTable()) ?? [];
    return `| ${name.replace('_', ' ')} | \`${variable}\` | ${usual} | ${least} | ${archived ? 'yes' : 'no'} |`;
  });
  expect(readFileSync(new URL('../../README.md', import.meta.url), 'utf8')).toContain(rows.join('\n'));
});
