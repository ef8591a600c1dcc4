import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { acknowledge } from '../../src/incidents/attention.ts';
import type { IncidentClass } from '../../src/incidents/class.ts';
import { raise } from '../../src/incidents/incident.ts';
import { listIncidents } from '../../src/incidents/listing.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Database } from '../../src/postgres/database.ts';
import { projectIncidents } from '../../src/project-incidents.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext, sweepOnce } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';

/** Somebody who may do anything. */
const desk = (database: Database) => ({ database, authorize: async () => ({ allowed: true }) as const, node: 'desk' });

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

/** A worker that has taken `jobs` jobs of the queue `work`. */
async function createBusyFleet(jobs: number, env: Record<string, string> = {}) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 5 }] });
  const { url, boss, database } = fleet;
  await installOwnership(database, TARGET);
  const executor = await createExecutor(url, database, 'worker', { env: 'prod', stack: 'blue' });
  await boss.insert(
    'work',
    Array.from({ length: jobs }, () => ({})),
  );
  const taken = await executor.fetch('work', jobs);
  expect(taken).toHaveLength(jobs);
  const context = await openTestContext(url, { RECLAIMD_ENV: 'prod', RECLAIMD_STACK: 'blue', ...env });
  const look = async (incidentClass: IncidentClass) => {
    await projectIncidents(context);
    return (await listIncidents(database, { class: incidentClass, state: 'all' })).incidents;
  };
  return { ...fleet, executor, jobIds: taken.map(({ id }) => id), context, look };
}

test('an executor that died with attempts is an incident until the last of them is back; each one back is progress', async () => {
  const { boss, executor, jobIds, look } = await createBusyFleet(30);
  expect(await look('dead_executor')).toEqual([]);
  await executor.die();
  const [incident] = await look('dead_executor');
  expect(incident).toMatchObject({
    fingerprint: 'dead_executor:worker',
    state: 'open',
    affected: 30,
    env: 'prod',
    stack: 'blue',
    queues: ['work'],
    summary: 'worker is dead (its process is gone): 30 attempts are not back yet',
  });
  expect(incident?.evidence['attempts']).toHaveLength(20);
  await boss.fail('work', jobIds.slice(0, 18));
  expect(await look('dead_executor')).toMatchObject([{ state: 'open', affected: 12, affectedMost: 30, occurrences: 1 }]);
  await boss.complete('work', jobIds.slice(18));
  expect(await look('dead_executor')).toMatchObject([{ state: 'resolved', openings: 1 }]);
});

test('five nodes that look at once agree: one incident, one opening, no failure, round after round', async () => {
  const { url, boss, database, executor, jobIds } = await createBusyFleet(5);
  await executor.die();
  const env = { RECLAIMD_ENV: 'prod', RECLAIMD_STACK: 'blue' };
  const nodes = await Promise.all(['n1', 'n2', 'n3', 'n4', 'n5'].map((node) => openTestContext(url, { ...env, RECLAIMD_NODE: node })));
  const lookTogether = () => Promise.all(nodes.map((context) => projectIncidents(context)));
  for (let round = 1; round <= 3; round++) {
    const opened = (await lookTogether()).flatMap((changes) => changes.opened);
    expect(opened).toEqual([{ class: 'dead_executor', count: 1 }]);
    await lookTogether();
    expect((await listIncidents(database)).incidents).toMatchObject([{ class: 'dead_executor', occurrences: round, openings: round }]);
    await database.query('UPDATE executor SET proof = NULL, dead_at = NULL, beat_at = now()');
    const resolved = (await lookTogether()).flatMap((changes) => changes.resolved);
    expect(resolved).toEqual([{ class: 'dead_executor', count: 1 }]);
    await executor.die();
  }
  await boss.complete('work', jobIds);
});

test('a look that is slow resolves nothing that another has found meanwhile: what was said of it stays', async () => {
  const { url, database, executor, look } = await createBusyFleet(2);
  const slow = await openTestContext(url, { RECLAIMD_NODE: 'slow', RECLAIMD_ENV: 'prod', RECLAIMD_STACK: 'blue' });
  const looked = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const query: typeof slow.database.query = async (text, values) => {
    if (text.includes('AS changed') && values?.[1] === 'dead_executor') {
      looked.resolve();
      await goOn.promise;
    }
    return slow.database.query(text, values);
  };
  const late = projectIncidents({ ...slow, database: { ...slow.database, query } });
  await looked.promise;
  await executor.die();
  const [found] = await look('dead_executor');
  await acknowledge(desk(database), { incidentId: found?.id ?? '', actor: 'ann@desk', reason: 'on my desk by now' });
  goOn.resolve();
  expect((await late).resolved).toEqual([]);
  expect(await look('dead_executor')).toMatchObject([{ state: 'acknowledged', openings: 1, acknowledged: { by: 'ann@desk' } }]);
});

test('a death without attempts, or whose attempts are back, is no incident', async () => {
  const { url, executor, look } = await createBusyFleet(3);
  await executor.die();
  expect(await sweepOnce(url, { RECLAIMD_ENV: 'prod', RECLAIMD_STACK: 'blue' })).toMatchObject({ failed: 3 });
  expect(await look('dead_executor')).toEqual([]);
});

test('attempts that are held have their own incidents, and leave none of their executor', async () => {
  const { url, boss, executor, jobIds, database, look } = await createBusyFleet(3);
  await executor.die();
  expect(await look('dead_executor')).toMatchObject([{ state: 'open', affected: 3 }]);
  await sweepOnce(url, { RECLAIMD_ENV: 'prod', RECLAIMD_STACK: 'blue', RECLAIMD_POLICY: 'hold' });
  expect(await look('dead_executor')).toMatchObject([{ state: 'resolved' }]);
  expect(await look('held_orphan')).toMatchObject([{ state: 'open' }, { state: 'open' }, { state: 'open' }]);
  await database.query('DELETE FROM recovery WHERE job_id = $1', [jobIds[0]]);
  expect(await look('dead_executor'), 'one that is not held').toMatchObject([{ state: 'open', affected: 1 }]);
  // Of an executor that is forgotten the record alone tells.
  await database.query('DELETE FROM executor');
  expect(await look('dead_executor')).toMatchObject([{ state: 'open' }]);
  await boss.complete('work', jobIds[0] ?? '');
  expect(await look('dead_executor')).toMatchObject([{ state: 'resolved' }]);
});

test('forgetting the executor does not resolve its incident; the end of its attempts does', async () => {
  const { boss, database, executor, jobIds, look } = await createBusyFleet(2);
  await executor.die();
  expect(await look('dead_executor')).toMatchObject([{ state: 'open' }]);
  await database.query('DELETE FROM executor');
  expect(await look('dead_executor')).toMatchObject([{ state: 'open', affected: 2 }]);
  await boss.complete('work', jobIds[0] ?? '');
  expect(await look('dead_executor')).toMatchObject([{ state: 'open' }]);
  await boss.complete('work', jobIds[1] ?? '');
  expect(await look('dead_executor')).toMatchObject([{ state: 'resolved' }]);
});

test('losing the record of ownership does not resolve it either, nor does the record alone', async () => {
  const { boss, database, executor, jobIds, look } = await createBusyFleet(25);
  await executor.die();
  await look('dead_executor');
  await database.query('CREATE TABLE kept AS SELECT * FROM attempt');
  await database.query('TRUNCATE attempt_a, attempt_b');
  expect(await look('dead_executor')).toMatchObject([{ state: 'open' }]);
  // Those that the incident names are back, but the record knows of more.
  await database.query('INSERT INTO attempt_a SELECT * FROM kept');
  await database.query('DELETE FROM executor');
  const [incident] = await look('dead_executor');
  const named = ((incident?.evidence['attempts'] ?? []) as { jobId: string }[]).map(({ jobId }) => jobId);
  await boss.complete('work', named);
  expect(await look('dead_executor')).toMatchObject([{ state: 'open' }]);
  await boss.complete('work', jobIds);
  expect(await look('dead_executor')).toMatchObject([{ state: 'resolved' }]);
});

test('an executor that lives after all resolves its incident, its attempts being in good hands', async () => {
  const { database, executor, look } = await createBusyFleet(1);
  await executor.die();
  expect(await look('dead_executor')).toMatchObject([{ state: 'open' }]);
  await database.query('UPDATE executor SET proof = NULL, dead_at = NULL, beat_at = now()');
  expect(await look('dead_executor')).toMatchObject([{ state: 'resolved' }]);
});

test('silence that a brake excuses neither opens an incident nor resolves one', async () => {
  const { database, executor, look, context } = await createBusyFleet(1, { RECLAIMD_OUTAGE_GRACE: '0s' });
  await silence(executor, 600);
  await database.query(`UPDATE fleet SET comeback_at = now() - interval '10 minutes', comeback_reason = 'test'`);
  const graceful = await openTestContext(context.config.databaseUrl, { RECLAIMD_OUTAGE_GRACE: '1h' });
  await projectIncidents(graceful);
  expect((await listIncidents(database, { class: 'dead_executor' })).incidents).toEqual([]);
  expect(await look('dead_executor')).toMatchObject([{ state: 'open', evidence: { verdict: 'missing' } }]);
  await projectIncidents(graceful);
  expect((await listIncidents(database, { class: 'dead_executor' })).incidents).toMatchObject([{ state: 'open' }]);
});

/** Its sessions would speak for it. */
async function silence(executor: Awaited<ReturnType<typeof createExecutor>>, seconds: number): Promise<void> {
  await executor.boss.stop({ graceful: false });
  await executor.fallSilent(seconds);
}

/** As if a daemon held the executor's process in sight. */
async function witness(database: Awaited<ReturnType<typeof createBusyFleet>>['database']): Promise<void> {
  await database.query(
    `INSERT INTO node (node, daemon_id, host, pid, version, boot_id) VALUES ('far', gen_random_uuid(), 'far', 1, '0', 'b') ON CONFLICT (node) DO UPDATE SET beat_at = now()`,
  );
  await database.query('INSERT INTO daemon (id) SELECT daemon_id FROM node ON CONFLICT (id) DO UPDATE SET beat_at = now()');
  await database.query(
    `UPDATE executor SET witness_node = node, witness_daemon_id = daemon_id, witness_boot_id = 'b', host = 'far', pid = 7 FROM node WHERE node = 'far'`,
  );
}

test('a hung executor that is out of view, or forgotten, is not resolved; its end resolves it', async () => {
  const { database, executor, look } = await createBusyFleet(1);
  await silence(executor, 600);
  await witness(database);
  expect(await look('hung_executor')).toMatchObject([{ state: 'open', node: 'far' }]);
  await silence(executor, 5 * 86_400);
  expect(await look('hung_executor')).toMatchObject([{ state: 'open' }]);
  await database.query('CREATE TABLE kept AS SELECT * FROM executor');
  await database.query('DELETE FROM executor');
  expect(await look('hung_executor')).toMatchObject([{ state: 'open' }]);
  await database.query('INSERT INTO executor SELECT * FROM kept');
  await database.query('UPDATE executor SET stopped_at = now()');
  expect(await look('hung_executor')).toMatchObject([{ state: 'resolved' }]);
});

test.each(['witness', 'sighting'] as const)(
  'a hung executor whose %s is lost stays hung, and acknowledged, for as long as that excuses it',
  async (eye) => {
    const { database, executor, look } = await createBusyFleet(1, { RECLAIMD_OUTAGE_GRACE: '0s', RECLAIMD_STARTUP_DELAY: '2m' });
    await database.query(`UPDATE fleet SET comeback_at = now() - interval '1 hour', comeback_reason = 'test'`);
    await silence(executor, 600);
    await witness(database);
    if (eye === 'sighting')
      await database.query('UPDATE executor SET sighting_daemon_id = witness_daemon_id, witness_daemon_id = NULL, witness_node = NULL');
    const [incident] = await look('hung_executor');
    await acknowledge(desk(database), { incidentId: incident?.id ?? '', actor: 'ann@desk', reason: 'on my desk by now' });
    const away = (seconds: number) => database.query('UPDATE daemon SET beat_at = now() - make_interval(secs => $1)', [seconds]);
    await away(95);
    expect(await look('dead_executor')).toEqual([]);
    expect(await look('hung_executor')).toMatchObject([{ state: 'acknowledged', acknowledged: { by: 'ann@desk' } }]);
    await away(0);
    expect(await look('hung_executor')).toMatchObject([{ state: 'acknowledged', openings: 1, occurrences: 1 }]);
    await away(180);
    expect(await look('hung_executor')).toMatchObject([{ state: 'resolved' }]);
    expect(await look('dead_executor')).toMatchObject([{ state: 'open' }]);
  },
);

test('what nobody can look at any more ends with its acknowledgement', async () => {
  const { database, executor, look } = await createBusyFleet(1);
  await silence(executor, 600);
  await witness(database);
  const [incident] = await look('hung_executor');
  await database.query('DELETE FROM executor');
  await acknowledge(desk(database), { incidentId: incident?.id ?? '', actor: 'ada@desk', reason: 'that host is scrapped' });
  expect(await look('hung_executor')).toMatchObject([{ state: 'resolved' }]);
});

test('a mass failure that is out of view is not over', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  const workers = await Promise.all(['a', 'b', 'c'].map((id) => createExecutor(url, database, id)));
  await boss.send('work', {});
  for (const worker of workers) await silence(worker, 600);
  const context = await openTestContext(url);
  const look = async () => {
    await projectIncidents(context);
    return (await listIncidents(database, { state: 'all' })).incidents;
  };
  expect(await look()).toMatchObject([{ class: 'mass_staleness', affected: 3, state: 'open', severity: 'critical' }]);
  for (const worker of workers) await silence(worker, 2 * 86_400);
  expect(await look()).toMatchObject([{ class: 'mass_staleness', state: 'open' }]);
  await database.query('UPDATE executor SET stopped_at = now()');
  expect(await look()).toMatchObject([{ class: 'mass_staleness', state: 'resolved' }]);
});

test('a poison job stays an incident while it lies ended, also when the queue has pruned it, until somebody moved it on or took note', async () => {
  const { url, boss, database, executor, jobIds, look } = await createBusyFleet(2);
  await executor.die();
  const sweepEnv = { RECLAIMD_ENV: 'prod', RECLAIMD_STACK: 'blue', RECLAIMD_MAX_RECOVERIES: '0' };
  expect(await sweepOnce(url, sweepEnv)).toMatchObject({ discarded: 2 });
  expect(await look('poison_job')).toMatchObject([{ state: 'open' }, { state: 'open' }]);
  await boss.retry('work', jobIds[0] ?? '');
  const moved = (await look('poison_job')).find(({ evidence }) => evidence['jobId'] === jobIds[0]);
  expect(moved).toMatchObject({ state: 'resolved' });
  await boss.deleteJob('work', jobIds[1] ?? '');
  const [pruned] = (await look('poison_job')).filter(({ evidence }) => evidence['jobId'] === jobIds[1]);
  expect(pruned).toMatchObject({ state: 'open' });
  await acknowledge(desk(database), { incidentId: pruned?.id ?? '', actor: 'ada@desk', reason: 'mended in the shop' });
  expect((await look('poison_job')).map(({ state }) => state)).toEqual(['resolved', 'resolved']);
});

test('a poison job was moved on once its dead letter copy is redriven; one worked on there wants a note', async () => {
  const { database, boss, url } = await createFleetDatabase({ queues: [{ name: 'dead' }, { name: 'work', deadLetter: 'dead' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const context = await openTestContext(url);
  const look = async () => {
    await projectIncidents(context);
    return (await listIncidents(database, { state: 'open' })).incidents.filter((one) => one.class === 'poison_job');
  };
  const poison = async (life: string) => {
    const executor = await createExecutor(url, database, life);
    expect(await executor.fetch('work')).toHaveLength(1);
    await executor.die();
    expect(await sweepOnce(url, { RECLAIMD_MAX_RECOVERIES: '0' })).toMatchObject({ discarded: 1 });
  };
  const id = (await boss.send('work', {})) ?? '';
  await poison('first');
  expect(await look()).toHaveLength(1);
  await boss.redrive('dead');
  expect(await look()).toEqual([]);
  // The redriven one is not of the next failure.
  const [again] = await boss.fetch('work');
  await boss.complete('work', again?.id ?? '');
  await boss.retry('work', id);
  await poison('second');
  const [open] = await look();
  expect(open).toMatchObject({ evidence: { jobId: id } });
  const [copy] = await boss.fetch('dead');
  await boss.complete('dead', copy?.id ?? '');
  expect(await look()).toHaveLength(1);
  await acknowledge(desk(database), { incidentId: open?.id ?? '', actor: 'ada@desk', reason: 'mended by the dead letter worker' });
  expect(await look()).toEqual([]);
});

test('a hold that is raised while others are being released stays open', async () => {
  const { url, boss, executor, jobIds, look } = await createBusyFleet(2);
  await executor.die();
  await sweepOnce(url, { RECLAIMD_ENV: 'prod', RECLAIMD_STACK: 'blue', RECLAIMD_POLICY: 'hold' });
  expect(await look('held_orphan')).toMatchObject([{ state: 'open', env: 'prod' }, { state: 'open' }]);
  await boss.complete('work', jobIds[0] ?? '');
  expect((await look('held_orphan')).map(({ state }) => state).sort()).toEqual(['open', 'resolved']);
});

test.each([
  [
    'held_orphan',
    (id: string) => `held_orphan:play/${id}:0`,
    ({ url }: { url: string; database: Database }) => sweepOnce(url, { RECLAIMD_POLICY: 'hold' }),
  ],
  [
    'dead_executor',
    () => 'dead_executor:two',
    // Of an executor that is forgotten the incident alone tells.
    ({ database }: { url: string; database: Database }) => database.query('WITH e AS (DELETE FROM executor) DELETE FROM attempt_a'),
  ],
] as const)('one job id in two queues is two jobs: the end of one ends its %s', async (incidentClass, left, happens) => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }, { name: 'play' }] });
  await installOwnership(database, TARGET);
  const context = await openTestContext(url);
  const id = randomUUID();
  for (const [queue, worker] of [
    ['work', 'one'],
    ['play', 'two'],
  ] as const) {
    const executor = await createExecutor(url, database, worker);
    await boss.send(queue, {}, { id });
    await executor.fetch(queue);
    await executor.die();
  }
  const look = async () => {
    await projectIncidents(context);
    return (await listIncidents(database, { class: incidentClass })).incidents.map(({ fingerprint }) => fingerprint);
  };
  await look();
  await happens({ url, database });
  expect(await look()).toHaveLength(2);
  await boss.complete('work', id);
  expect(await look()).toEqual([left(id)]);
});

test('a node that falls silent without a goodbye is an incident of the others, until it beats or says goodbye', async () => {
  const { database, look } = await createBusyFleet(1);
  await witness(database);
  expect(await look('supervision_stalled')).toEqual([]);
  await database.query(`UPDATE fleet SET comeback_at = now() - interval '1 hour', comeback_reason = 'test'`);
  await database.query(`UPDATE node SET beat_at = now() - interval '10 minutes'`);
  // The server of a test run may have started just now, and then nobody's silence counts yet.
  const opened = await waitFor('its incident', async () => (await look('supervision_stalled'))[0]);
  expect(opened).toMatchObject({ fingerprint: 'supervision_stalled:far', node: 'far', state: 'open' });
  await database.query('UPDATE node SET stopped_at = now()');
  expect(await look('supervision_stalled')).toMatchObject([{ state: 'resolved' }]);
});

test('missing ownership and its coming are seen, by any node', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  const context = await openTestContext(url);
  const open = async () => (await listIncidents(database)).incidents.map(({ class: incidentClass }) => incidentClass);
  await projectIncidents(context);
  expect(await open()).toEqual(['ownership_missing']);
  await installOwnership(database, TARGET);
  await projectIncidents(context);
  expect(await open()).toEqual([]);
});

test('the daemon projects by itself, and counts what it opens and resolves', async () => {
  const { url, boss, database, executor, jobIds } = await createBusyFleet(1);
  await executor.die();
  const daemon = await startTestDaemon(url, { RECLAIMD_DRY_RUN: 'true', RECLAIMD_LISTEN: '127.0.0.1:0' });
  const state = async () => (await listIncidents(database, { class: 'dead_executor', state: 'all' })).incidents[0]?.state;
  await waitFor('the incident', async () => (await state()) === 'open');
  await boss.complete('work', jobIds[0] ?? '');
  await waitFor('its end', async () => (await state()) === 'resolved');
  await waitFor('its count', async () => {
    const text = await (await fetch(`${daemon.url}/metrics`)).text();
    const counted = (name: string) => text.includes(`reclaimd_incidents_${name}_total{class="dead_executor",severity="error"} 1`);
    return counted('opened') && counted('resolved');
  });
});

test('what only a node can see stays open while it is heard of, and after that until it is acknowledged', async () => {
  const { database, url } = await createFleetDatabase();
  const context = await openTestContext(url);
  for (const node of ['here', 'gone'])
    for (const incidentClass of ['unit_failed', 'pgboss_unsupported'] as const)
      await raise(database, node, { class: incidentClass, fingerprint: `${incidentClass}:${node}`, summary: 's', evidence: {} });
  for (const node of ['here', 'gone'])
    await database.query(`INSERT INTO node (node, daemon_id, host, pid, version) VALUES ($1, gen_random_uuid(), 'h', 1, '0')`, [node]);
  const ofNodes = async () => (await listIncidents(database, {})).incidents.filter(({ class: name }) => /^(unit|pgboss)/.test(name));
  const open = async () => {
    await projectIncidents(context);
    return (await ofNodes()).map(({ fingerprint }) => fingerprint).sort();
  };
  const all = ['pgboss_unsupported:gone', 'pgboss_unsupported:here', 'unit_failed:gone', 'unit_failed:here'];
  await database.query(`UPDATE node SET beat_at = now() - interval '2 hours' WHERE node = 'gone'`);
  expect(await open()).toEqual(all);
  for (const { id } of await ofNodes())
    await acknowledge(desk(database), { incidentId: id, actor: 'ann@desk', reason: 'that host is gone' });
  expect(await open()).toEqual(all.filter((fingerprint) => fingerprint.endsWith('here')));
});

test('a daemon that looks after no units has none that is wrong', async () => {
  const { database, url } = await createFleetDatabase();
  await raise(database, 'test', { class: 'unit_failed', fingerprint: 'unit_failed:test:a', summary: 's', evidence: {} });
  await raise(database, 'other', { class: 'unit_failed', fingerprint: 'unit_failed:other:a', summary: 's', evidence: {} });
  await startTestDaemon(url);
  await waitFor('its own to be resolved', async () => (await listIncidents(database, {})).incidents.length === 1);
  expect((await listIncidents(database, {})).incidents[0]?.fingerprint).toBe('unit_failed:other:a');
});
