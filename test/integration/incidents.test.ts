import { expect, test } from 'vitest';
import type { Resource } from '../../src/authorization/action.ts';
import type { Authorize } from '../../src/authorization/authorize.ts';
import { acknowledge, snooze } from '../../src/incidents/attention.ts';
import { type Finding, listOpenEvidence, project, raise, resolve, resolveGone } from '../../src/incidents/incident.ts';
import { listIncidents, readIncident } from '../../src/incidents/listing.ts';
import type { Database, Sql } from '../../src/postgres/database.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { createTestDatabase } from '../support/database.ts';

async function createIncidents() {
  const test = await createTestDatabase();
  const database = test.connect();
  await migrate(database, 'reclaimd');
  return { ...test, database };
}

const hung = (name: string, more: Partial<Finding> = {}): Finding => ({
  class: 'hung_executor',
  fingerprint: `hung_executor:${name}`,
  summary: `${name} hangs`,
  evidence: { executor: name },
  ...more,
});

const stuck = (name: string, more: Partial<Finding> = {}) => hung(name, { class: 'workflow_stuck', ...more });

const open = async (database: Database) => (await listIncidents(database)).incidents;
const openFingerprints = async (database: Database) => (await open(database)).map(({ fingerprint }) => fingerprint).sort();
async function only(database: Database) {
  const [first, ...others] = (await listIncidents(database, { state: 'all' })).incidents;
  expect(others).toEqual([]);
  if (!first) throw new Error('there is no incident');
  return first;
}
const wholeOf = async (database: Database) => readIncident(database, (await only(database)).id);

test('what is found opens, stays while it is found, and is resolved when it is not', async () => {
  const { database } = await createIncidents();
  expect(await project(database, 'n', 'hung_executor', [hung('a'), hung('b')])).toEqual({
    opened: [{ class: 'hung_executor', count: 2 }],
    resolved: [],
  });
  expect(await openFingerprints(database)).toEqual(['hung_executor:a', 'hung_executor:b']);
  expect(await project(database, 'n', 'hung_executor', [hung('b')])).toEqual({
    opened: [],
    resolved: [{ class: 'hung_executor', count: 1 }],
  });
  expect(await openFingerprints(database)).toEqual(['hung_executor:b']);
  expect((await listIncidents(database, { state: 'resolved' })).incidents).toMatchObject([
    { fingerprint: 'hung_executor:a', state: 'resolved', severity: 'error' },
  ]);
});

test('a projection that finds nothing new writes nothing', async () => {
  const { database } = await createIncidents();
  const versions = () =>
    database.query('SELECT xmin::text, ctid::text FROM incident UNION ALL SELECT xmin::text, ctid::text FROM incident_occurrence');
  await project(database, 'n', 'hung_executor', [hung('a')]);
  const before = await versions();
  expect(await project(database, 'other', 'hung_executor', [hung('a')])).toEqual({ opened: [], resolved: [] });
  expect(await versions()).toEqual(before);
});

test('the last sighting of what lasts is renewed now and then, without counting an occurrence', async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a')]);
  await database.query(`UPDATE incident SET last_seen_at = now() - interval '10 minutes'`);
  await project(database, 'n', 'hung_executor', [hung('a')]);
  const { lastSeenSeconds, occurrences } = await only(database);
  expect(lastSeenSeconds).toBeLessThan(300);
  expect(occurrences).toBe(1);
});

test('reopening continues the same incident: first sight, every opening and each evidence are kept', async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a', { evidence: { executor: 'a', pid: 1 } })]);
  await database.query(`UPDATE incident SET first_seen_at = first_seen_at - interval '1 day', opened_at = opened_at - interval '1 day'`);
  const { id, firstSeenAt } = await only(database);
  await project(database, 'n', 'hung_executor', []);
  await project(database, 'm', 'hung_executor', [hung('a', { evidence: { executor: 'a', pid: 2 } })]);
  const whole = await wholeOf(database);
  expect(whole).toMatchObject({ id, firstSeenAt, state: 'open', openings: 2, occurrences: 2, resolvedAt: null, evidence: { pid: 2 } });
  expect(whole?.openedSeconds).toBeLessThan(3600);
  expect(whole?.history).toMatchObject([
    { opening: 1, resolvedAt: expect.any(String) },
    { opening: 2, resolvedAt: null },
  ]);
  expect(whole?.occurrencesKept).toMatchObject([
    { number: 1, opening: 1, node: 'n', evidence: { pid: 1 } },
    { number: 2, opening: 2, node: 'm', evidence: { pid: 2 } },
  ]);
});

test('of many occurrences the first and the last are kept, and the count is exact', async () => {
  const { database } = await createIncidents();
  for (let sighting = 1; sighting <= 60; sighting++) await raise(database, 'n', hung('a', { evidence: { sighting } }));
  const whole = await wholeOf(database);
  expect(whole?.occurrences).toBe(60);
  const kept = whole?.occurrencesKept.map(({ number, evidence }) => [number, evidence['sighting']]);
  expect(kept?.slice(0, 5)).toEqual([1, 2, 3, 4, 5].map((number) => [number, number]));
  expect(kept?.slice(5)).toEqual(Array.from({ length: 20 }, (_, index) => [41 + index, 41 + index]));
});

test('of many openings the first and the last are kept, and the count is exact', async () => {
  const { database } = await createIncidents();
  for (let opening = 1; opening <= 40; opening++) {
    await project(database, 'n', 'hung_executor', [hung('a')]);
    await project(database, 'n', 'hung_executor', []);
  }
  const whole = await wholeOf(database);
  expect(whole?.openings).toBe(40);
  expect(whole?.history.map(({ opening }) => opening)).toEqual([1, 2, 3, 4, 5, ...Array.from({ length: 20 }, (_, index) => 21 + index)]);
  expect(whole?.history.every(({ resolvedAt }) => resolvedAt !== null)).toBe(true);
});

test('fewer targets are progress: it stays open, and says of how many', async () => {
  const { database } = await createIncidents();
  for (const affected of [200, 120, 40])
    await project(database, 'n', 'hung_executor', [hung('a', { affected, evidence: { executor: 'a', left: affected } })]);
  expect(await only(database)).toMatchObject({ state: 'open', affected: 40, affectedMost: 200, occurrences: 1, evidence: { left: 40 } });
  await project(database, 'n', 'hung_executor', [hung('a', { affected: 90, evidence: { executor: 'a', left: 90 } })]);
  expect(await only(database)).toMatchObject({ affected: 90, affectedMost: 200, occurrences: 2 });
  await project(database, 'n', 'hung_executor', []);
  expect(await only(database)).toMatchObject({ state: 'resolved' });
});

test('five nodes projecting the same at once: one incident each, no crash, no deadlock', async () => {
  const { database, connect } = await createIncidents();
  const nodes = ['n1', 'n2', 'n3', 'n4', 'n5'].map((node) => ({ node, database: connect() }));
  const names = Array.from({ length: 60 }, (_, index) => `e${index}`);
  for (let round = 0; round < 8; round++) {
    const some = names.filter((_, index) => (index + round) % 3 > 0);
    const changes = await Promise.all(
      nodes.map(({ node, database: own }, index) =>
        project(
          own,
          node,
          'hung_executor',
          (index % 2 ? some : some.toReversed()).map((name) => hung(name)),
        ),
      ),
    );
    expect(await openFingerprints(database)).toEqual(some.map((name) => `hung_executor:${name}`).sort());
    const opened = changes.flatMap((change) => change.opened).reduce((sum, { count }) => sum + count, 0);
    expect(opened, 'each was opened by one of them').toBe(round === 0 ? 40 : 20);
  }
  expect(await database.query('SELECT FROM incident')).toHaveLength(60);
  expect(
    await database.query('SELECT FROM incident_occurrence o JOIN incident i ON i.id = o.incident_id WHERE o.number > i.occurrences'),
  ).toEqual([]);
});

test('raising and resolving by many at once, in any order, deadlocks nobody and loses no count', async () => {
  const { database, connect } = await createIncidents();
  const nodes = Array.from({ length: 5 }, () => connect());
  const names = Array.from({ length: 30 }, (_, index) => `w${String(index).padStart(2, '0')}`);
  await Promise.all(
    nodes.map(async (own, index) => {
      const mine = index % 2 ? names : names.toReversed();
      for (let round = 0; round < 5; round++) {
        await raise(
          own,
          `n${index}`,
          mine.map((name) => stuck(name)),
        );
        await resolve(own, 'workflow_stuck', (await listOpenEvidence(own, 'workflow_stuck')).slice(0, 10));
      }
    }),
  );
  expect(await database.query('SELECT DISTINCT occurrences FROM incident')).toEqual([{ occurrences: 25 }]);
});

test('an incident that has occurred again since somebody saw its condition gone stays open', async () => {
  const { database } = await createIncidents();
  await raise(database, 'n', [hung('a'), hung('b')]);
  const seen = await listOpenEvidence(database, 'hung_executor');
  await raise(database, 'n', hung('a'));
  expect(await resolve(database, 'hung_executor', seen)).toEqual({ opened: [], resolved: [{ class: 'hung_executor', count: 1 }] });
  expect(await openFingerprints(database)).toEqual(['hung_executor:a']);
});

test('looks that differ write and resolve past each other: none waits for another that waits for it', async () => {
  const { database, connect } = await createIncidents();
  const nodes = Array.from({ length: 6 }, () => connect());
  const half = (letter: string, round: number) =>
    Array.from({ length: 300 }, (_, index) => hung(`${letter}${index}`, { evidence: { round: `${round}` } }));
  await Promise.all(
    nodes.map(async (own, index) => {
      for (let round = 0; round < 10; round++) {
        await project(own, `n${index}`, 'hung_executor', [...half('a', -1), ...half('z', -1)]);
        await project(own, `n${index}`, 'hung_executor', half(index % 2 ? 'a' : 'z', round));
      }
    }),
  );
  // What a session counted is told when it ends, at the latest.
  await Promise.all(nodes.map((node) => node.close()));
  const deadlocks = 'SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()';
  expect(await database.query(deadlocks)).toEqual([{ deadlocks: 0 }]);
});

test('a look resolves only what it covered: its class, its node, its prefix', async () => {
  const { database } = await createIncidents();
  const unit = (node: string, name: string): Finding => ({
    class: 'unit_failed',
    fingerprint: `unit_failed:${node}:${name}`,
    summary: `${name} failed`,
    evidence: { unit: name },
  });
  await project(database, 'n1', 'unit_failed', [unit('n1', 'a.service')]);
  await project(database, 'n2', 'unit_failed', [unit('n2', 'a.service'), unit('n2', 'b.service')]);
  await project(database, 'n3', { class: 'unit_failed' }, []);
  expect(await openFingerprints(database)).toHaveLength(3);
  await project(database, 'n2', 'unit_failed', [unit('n2', 'b.service')]);
  expect(await openFingerprints(database)).toEqual(['unit_failed:n1:a.service', 'unit_failed:n2:b.service']);

  const flow = (name: string) => stuck(name, { fingerprint: `workflow_stuck:${name}` });
  await project(database, 'n1', 'workflow_stuck', [flow('x/1'), flow('y/1')]);
  await project(database, 'n1', { class: 'workflow_stuck', prefix: 'workflow_stuck:x/' }, []);
  expect(await openFingerprints(database)).toContain('workflow_stuck:y/1');
  expect(await openFingerprints(database)).not.toContain('workflow_stuck:x/1');
  await project(database, 'n1', 'hung_executor', []);
  expect(await openFingerprints(database)).toHaveLength(3);
});

test('what a look could not judge is neither opened nor resolved', async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a'), hung('b')]);
  await project(database, 'n', { class: 'hung_executor', unknown: ['hung_executor:a', 'hung_executor:never-seen'] }, []);
  expect(await openFingerprints(database)).toEqual(['hung_executor:a']);
  await resolveGone(database, { class: 'hung_executor', unknown: ['hung_executor:a'] }, []);
  expect(await openFingerprints(database)).toEqual(['hung_executor:a']);
  await resolveGone(database, 'hung_executor', []);
  expect(await openFingerprints(database)).toEqual([]);
});

test('a projection is all or nothing with the transaction that it joins', async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a')]);
  const failed = database.transaction(async (tx) => {
    await project(tx, 'n', 'hung_executor', [hung('b')]);
    throw new Error('no');
  });
  await expect(failed).rejects.toThrow('no');
  expect(await openFingerprints(database)).toEqual(['hung_executor:a']);
});

test('a thousand new conditions are one write, not a thousand', async () => {
  const { database } = await createIncidents();
  const findings = Array.from({ length: 1000 }, (_, index) =>
    hung(`e${index}`, { evidence: { executor: `e${index}`, queues: ['a', 'b'] } }),
  );
  let statements = 0;
  const count = (sql: Sql): Sql => ({
    query: (...args) => {
      statements += 1;
      return sql.query(...args);
    },
    execute: (...args) => {
      statements += 1;
      return sql.execute(...args);
    },
  });
  const counting: Database = { ...database, ...count(database), transaction: (work) => database.transaction((tx) => work(count(tx))) };
  expect(await project(counting, 'n', 'hung_executor', findings)).toEqual({
    opened: [{ class: 'hung_executor', count: 1000 }],
    resolved: [],
  });
  expect(statements).toBeLessThanOrEqual(4);
  expect(await project(counting, 'n', 'hung_executor', [])).toEqual({ opened: [], resolved: [{ class: 'hung_executor', count: 1000 }] });
  expect(await database.query('SELECT FROM incident_opening WHERE resolved_at IS NOT NULL')).toHaveLength(1000);
});

test('one finding given twice counts once, and the last stands', async () => {
  const { database } = await createIncidents();
  await raise(database, 'n', [hung('a', { summary: 'first' }), hung('a', { summary: 'second' })]);
  expect(await only(database)).toMatchObject({ summary: 'second', occurrences: 1 });
});

const desk = (database: Database, authorize: Authorize = async () => ({ allowed: true })) => ({ database, authorize, node: 'n' });
const ASKED = { actor: 'ada@desk', reason: '  looking into it  ' };

test('an acknowledgement is kept with who and why, is audited, and does not outlive the opening', async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a')]);
  const { id } = await only(database);
  expect(await acknowledge(desk(database), { ...ASKED, incidentId: id })).toEqual({
    done: true,
    until: null,
    before: { acknowledged: null, snoozed: null },
  });
  expect(await only(database)).toMatchObject({ state: 'acknowledged', acknowledged: { by: 'ada@desk', reason: 'looking into it' } });
  expect(await database.query('SELECT actor, action, target, outcome, reason, detail FROM audit')).toEqual([
    {
      actor: 'ada@desk',
      action: 'incident_acknowledge',
      target: `incident/${id}`,
      outcome: 'done',
      reason: 'looking into it',
      detail: { fingerprint: 'hung_executor:a' },
    },
  ]);
  await project(database, 'n', 'hung_executor', [hung('a', { evidence: { executor: 'a', pid: 2 } })]);
  expect(await only(database), 'more of the same').toMatchObject({ state: 'acknowledged' });
  await project(database, 'n', 'hung_executor', []);
  await project(database, 'n', 'hung_executor', [hung('a')]);
  expect(await only(database)).toMatchObject({ state: 'open', acknowledged: null });
  expect((await wholeOf(database))?.audit).toMatchObject([{ action: 'incident_acknowledge', actor: 'ada@desk' }]);
});

test("a snooze lasts until the database's time says otherwise, also over a reopening", async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a')]);
  const { id } = await only(database);
  expect(await snooze(desk(database), { ...ASKED, incidentId: id, seconds: 3600 })).toMatchObject({
    done: true,
    until: expect.any(String),
  });
  await project(database, 'n', 'hung_executor', []);
  await project(database, 'n', 'hung_executor', [hung('a')]);
  expect(await only(database)).toMatchObject({ state: 'snoozed', snoozed: { by: 'ada@desk', reason: 'looking into it' } });
  await database.query(`UPDATE incident SET snoozed_until = now() - interval '1 second'`);
  expect(await only(database)).toMatchObject({ state: 'open', snoozed: null });
  expect(await database.query('SELECT action, detail FROM audit')).toMatchObject([
    { action: 'incident_snooze', detail: { until: expect.any(String) } },
  ]);
});

test.each([
  ['a reason that is too short', { reason: ' 1234567 ' }, 'a reason of 8 characters'],
  ['a reason that nobody can see', { reason: '\u200B'.repeat(20) }, 'a reason of 8 characters'],
  ['an incident that is not there', { incidentId: '4711' }, 'there is no incident 4711'],
])('attention with %s is refused and leaves nothing', async (_, wrong, refusal) => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a')]);
  const { id } = await only(database);
  const request = { ...ASKED, incidentId: id, ...wrong };
  expect(await acknowledge(desk(database), request)).toEqual({ done: false, refusal: expect.stringContaining(refusal) });
  expect(await snooze(desk(database), { ...request, seconds: 60 })).toEqual({ done: false, refusal: expect.stringContaining(refusal) });
  expect(await only(database)).toMatchObject({ state: 'open' });
  expect(await database.query(`SELECT FROM audit WHERE outcome = 'done'`)).toEqual([]);
});

test.each<[Finding, Resource]>([
  [
    hung('e1', { evidence: { executor: 'e1', queues: ['mail', 'pay'], unit: 'mail.service' } }),
    { kind: 'executor', id: 'e1', queues: ['mail', 'pay'] },
  ],
  [
    { class: 'held_orphan', fingerprint: 'held_orphan:pay/1:0', summary: 'held', evidence: { queue: 'pay', jobId: '1', executorId: 'e1' } },
    { kind: 'queue', name: 'pay' },
  ],
  [
    { class: 'unit_failed', fingerprint: 'unit_failed:n:mail.service', summary: 'failed', evidence: { unit: 'mail.service' } },
    { kind: 'unit', node: 'n', name: 'mail.service' },
  ],
  [{ class: 'mass_staleness', fingerprint: 'mass_staleness', summary: 'many', evidence: { executors: ['a', 'b'] } }, { kind: 'fleet' }],
])('rights are asked for on what is in trouble; a denial changes nothing and is audited: %o', async (finding, resource) => {
  const { database } = await createIncidents();
  await project(database, 'n', finding.class, [finding]);
  const { id } = await only(database);
  const asked: unknown[] = [];
  const deny = desk(database, async (...question) => {
    asked.push(question);
    return { allowed: false, sentence: 'ada may not' };
  });
  expect(await acknowledge(deny, { ...ASKED, incidentId: id })).toEqual({ done: false, refusal: 'ada may not' });
  expect(await snooze(deny, { ...ASKED, incidentId: id, seconds: 60 })).toEqual({ done: false, refusal: 'ada may not' });
  expect(asked).toEqual([
    ['ada@desk', 'incident_acknowledge', resource],
    ['ada@desk', 'incident_snooze', resource],
  ]);
  expect(await only(database)).toMatchObject({ state: 'open', acknowledged: null, snoozed: null });
  expect(await database.query('SELECT action, outcome, detail FROM audit ORDER BY seq')).toEqual(
    ['incident_acknowledge', 'incident_snooze'].map((action) => ({
      action,
      outcome: 'denied',
      detail: { fingerprint: finding.fingerprint, denial: 'ada may not' },
    })),
  );
});

test('of several queues the right is asked for on each, and not for the fleet', async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'workflow_stuck', [stuck('f', { evidence: { parent: 'flow-a/1' }, queues: ['flow-a', 'flow-b', 'pay'] })]);
  const { id } = await only(database);
  const allowing = (pattern: RegExp) => {
    const authorize: Authorize = async (_actor, _action, resource) =>
      resource.kind === 'queue' && pattern.test(resource.name)
        ? { allowed: true }
        : { allowed: false, sentence: `no right: ${JSON.stringify(resource)}` };
    return desk(database, authorize);
  };
  expect(await acknowledge(allowing(/^flow-/), { ...ASKED, incidentId: id })).toEqual({
    done: false,
    refusal: 'no right: {"kind":"queue","name":"pay"}',
  });
  expect(await only(database)).toMatchObject({ state: 'open' });
  expect(await acknowledge(allowing(/^(flow-|pay$)/), { ...ASKED, incidentId: id })).toMatchObject({ done: true });
});

test('what is resolved takes no attention any more, and no snooze is endless', async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a')]);
  const { id } = await only(database);
  for (const seconds of [0, -1, Number.NaN, 31 * 86_400])
    expect(await snooze(desk(database), { ...ASKED, incidentId: id, seconds })).toMatchObject({ done: false });
  await project(database, 'n', 'hung_executor', []);
  expect(await acknowledge(desk(database), { ...ASKED, incidentId: id })).toEqual({
    done: false,
    refusal: expect.stringContaining('resolved already'),
  });
});

test('lists are filtered by class, severity, node, queue, time and state, and sorted by what needs a person first', async () => {
  const { database } = await createIncidents();
  await project(database, 'n', 'hung_executor', [hung('a', { node: 'n1' }), hung('b', { node: 'n2', queues: ['mail'] })]);
  await project(database, 'n', 'mass_staleness', [
    { class: 'mass_staleness', fingerprint: 'mass_staleness', summary: 'many', evidence: { executors: ['x'] } },
  ]);
  await raise(database, 'n', {
    class: 'held_orphan',
    fingerprint: 'held_orphan:pay/1',
    summary: 'held',
    evidence: { queue: 'pay', jobId: '1' },
  });
  await raise(database, 'n', {
    class: 'held_orphan',
    fingerprint: 'held_orphan:old/1',
    summary: 'held',
    evidence: { queue: 'old', jobId: '1' },
  });
  const held = await listOpenEvidence(database, 'held_orphan');
  const ended = held.filter(({ fingerprint }) => fingerprint === 'held_orphan:old/1');
  await resolve(database, 'held_orphan', ended);
  await database.query(`UPDATE incident SET last_seen_at = now() - interval '3 hours' WHERE fingerprint = 'hung_executor:a'`);
  const list = async (filter: Parameters<typeof listIncidents>[1]) =>
    (await listIncidents(database, filter)).incidents.map(({ fingerprint }) => fingerprint);
  const everyOpen = ['mass_staleness', 'hung_executor:b', 'hung_executor:a', 'held_orphan:pay/1'];
  expect(await list({})).toEqual(everyOpen);
  expect(await list({ class: 'hung_executor' })).toEqual(['hung_executor:b', 'hung_executor:a']);
  expect(await list({ severity: 'critical' })).toEqual(['mass_staleness']);
  expect(await list({ severity: 'critical', class: 'hung_executor' })).toEqual([]);
  expect(await list({ node: 'n2' })).toEqual(['hung_executor:b']);
  expect(await list({ queue: 'mail' })).toEqual(['hung_executor:b']);
  expect(await list({ queue: 'pay' })).toEqual(['held_orphan:pay/1']);
  expect(await list({ withinSeconds: 3600 }), 'what is open is seen now, whenever that was noted').toEqual(everyOpen);
  expect(await list({ state: 'resolved' })).toEqual(['held_orphan:old/1']);
  expect(await list({ state: 'all' })).toEqual([...everyOpen, 'held_orphan:old/1']);
  expect(await list({ state: 'all', limit: 2 })).toEqual(everyOpen.slice(0, 2));
  expect(await list({ state: 'all', withinSeconds: 3600 })).toEqual([...everyOpen, 'held_orphan:old/1']);
  await database.query(`UPDATE incident SET resolved_at = now() - interval '2 hours' WHERE fingerprint = 'held_orphan:old/1'`);
  expect(await list({ state: 'all', withinSeconds: 3600 })).toEqual(everyOpen);
  expect(await listIncidents(database, { limit: 1 })).toMatchObject({ total: 4 });
  const [critical] = (await listIncidents(database)).incidents;
  await acknowledge(desk(database), { ...ASKED, incidentId: critical?.id ?? '' });
  expect(await list({}), 'what somebody has taken on comes last').toEqual([...everyOpen.slice(1), 'mass_staleness']);
});
