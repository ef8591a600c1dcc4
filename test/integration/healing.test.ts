import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import type { UnitStatus } from '../../src/actions/unit-manager.ts';
import { endAllAbandoned } from '../../src/actions/unit-record.ts';
import type { Context } from '../../src/context.ts';
import { type HealDependencies, type HealEvent, healAll, healUnit, summary } from '../../src/healing/heal.ts';
import { restartUnit, stopUnit } from '../../src/healing/restart.ts';
import type { Database } from '../../src/postgres/database.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { openTestContext } from '../support/executor.ts';
import { createScriptedUnits, FAILED, type ScriptedUnits } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';

const ENV = { RECLAIMD_UNITS: 'a b c w@', RECLAIMD_HEAL_SETTLE: '400ms', RECLAIMD_HEAL_BACKOFF: '0s' };
const PERSON = { actor: 'ann@desk', automatic: false, reason: 'it should run' };
const DAEMON = { actor: 'reclaimd@test', automatic: true, reason: null };

interface Row {
  unit: string;
  node: string;
  actor: string;
  outcome: string | null;
  error: string | null;
  condition: string | null;
  phases: { phase: string }[];
}

const actions = (database: Database) =>
  database.query<Row>('SELECT unit, node, actor, outcome, error, condition, phases FROM unit_action ORDER BY id');
const starts = (units: ScriptedUnits) => units.calls.filter((call) => call.startsWith('start'));

function healingOf(context: Context): HealDependencies {
  const healing = context.healDependencies();
  if (!healing) throw new Error('no units');
  return healing;
}

async function setUp(env: Record<string, string> = {}) {
  const { url, database } = await createFleetDatabase();
  const units = createScriptedUnits();
  const service = { manager: units.manager, journal: units.journal };
  const context = await openTestContext(url, { ...ENV, ...env }, { units: service });
  const events: HealEvent[] = [];
  return {
    url,
    database,
    units,
    service,
    context,
    healing: healingOf(context),
    events,
    emit: (event: HealEvent) => events.push(event),
  };
}

test('a failed unit is started without a reset, and watched; the intent, the result and the audit stay', async () => {
  const { database, units, healing, events, emit } = await setUp();
  units.set('a.service', FAILED);
  expect(await healUnit(healing, 'a.service', PERSON, emit)).toEqual({ outcome: 'healed', unit: 'a.service' });
  expect(units.calls).toEqual(['start a.service']);
  expect(events.map(({ phase }) => phase)).toEqual(['starting', 'healed']);
  const [row] = await actions(database);
  expect(row).toMatchObject({ unit: 'a.service', node: 'test', actor: 'ann@desk', outcome: 'done', condition: 'failed' });
  expect(row?.phases.map(({ phase }) => phase)).toEqual(['start', 'settle']);
  expect(await database.query('SELECT actor, action, target, outcome, reason FROM audit')).toEqual([
    { actor: 'ann@desk', action: 'unit_heal', target: 'test:a.service', outcome: 'done', reason: 'it should run' },
  ]);
});

test('a unit that ends again while it settles is not healed; who asks hears its last words, no record does', async () => {
  const { database, units, healing, events, emit } = await setUp();
  units.set('a.service', FAILED);
  units.onStart('a.service', { diesAfterMs: 150 });
  units.lastLines.set('a.service', ['cannot open postgres://svc:hunter2@db/app']);
  const healed = await healUnit(healing, 'a.service', PERSON, emit);
  expect(healed).toMatchObject({ outcome: 'failed', error: expect.stringMatching(/it was failed .*exited with status 1/) });
  expect(events.at(-1)?.error).toMatch(/exited with status 1.*last words: cannot open postgres:\/\/\*\*\*@db\/app/);
  const recorded = await database.query('SELECT detail::text FROM audit UNION ALL SELECT to_jsonb(u)::text FROM unit_action u');
  expect(JSON.stringify([healed, recorded])).not.toMatch(/cannot open|hunter2/);
});

test.each([
  ['comes up', 'done', 'healed'],
  ['does not come up', 'failed', 'failed'],
])('the bus goes away during a heal, and the unit %s: that is what is told', async (_, job, outcome) => {
  const { database, units, healing } = await setUp();
  units.set('a.service', FAILED);
  const started = Promise.withResolvers<void>();
  units.onStart('a.service', { ends: started.promise, job });
  const healed = healUnit(healing, 'a.service', PERSON);
  await waitFor('the start', () => starts(units).length === 1);
  units.setBus(false);
  started.resolve();
  setTimeout(() => units.setBus(true), 1_000);
  expect(await healed).toMatchObject({ outcome });
  expect(await actions(database)).toMatchObject([{ outcome: job }]);
});

test.each([
  ['its start job', true],
  ['a bus that is away', false],
])('with the signal a heal waits for %s no longer: what becomes of it is unknown', async (_, isBusUp) => {
  const { database, units, healing } = await setUp();
  units.set('a.service', FAILED);
  const started = Promise.withResolvers<void>();
  units.onStart('a.service', { ends: started.promise });
  const stopping = new AbortController();
  const healed = healUnit(healing, 'a.service', DAEMON, undefined, stopping.signal);
  await waitFor('the start', () => starts(units).length === 1);
  units.setBus(isBusUp);
  if (!isBusUp) started.resolve();
  setTimeout(() => stopping.abort(), 500);
  expect(await healed).toMatchObject({ outcome: 'failed', error: expect.stringContaining('nobody could watch') });
  expect(await actions(database)).toMatchObject([{ outcome: 'unknown' }]);
});

test('a daemon that is stopped while a heal waits for its start job is stopped at once', async () => {
  const { url, database, units, service } = await setUp();
  units.set('a.service', FAILED);
  units.onStart('a.service', { ends: new Promise(() => undefined) });
  const daemon = await startTestDaemon(url, ENV, { units: service });
  await waitFor('the start', () => starts(units).length === 1);
  await daemon.stop();
  expect(await actions(database)).toMatchObject([{ outcome: 'unknown' }]);
});

test('who asks for a heal while a person stops the unit is told so: a stop that went well is no heal', async () => {
  const { database, units, healing, events, emit } = await setUp();
  units.set('a.service', { activeState: 'active', subState: 'running', result: 'success' });
  const { stop } = units.manager;
  const stopping = Promise.withResolvers<void>();
  units.manager.stop = async (unit) => {
    await stopping.promise;
    return stop(unit);
  };
  const stopped = stopUnit(healing, 'a.service', { actor: 'bob@desk', reason: null });
  await waitFor('its beginning', async () => (await actions(database)).length === 1);
  const healed = healUnit(healing, 'a.service', PERSON, emit);
  await waitFor('it to wait for that', () => events.length > 0);
  stopping.resolve();
  expect(await healed).toMatchObject({ outcome: 'failed', error: expect.stringMatching(/^bob@desk was about to stop it/) });
  expect(await stopped).toMatchObject({ outcome: 'done' });
  expect(starts(units)).toEqual([]);
});

test('what was stopped through this program stays stopped, also where the journal cannot tell', async () => {
  const { units, healing } = await setUp({ RECLAIMD_UNITS_DESIRED: 'a', RECLAIMD_HEAL_STOPPED: 'true' });
  units.set('a.service', {});
  expect(await stopUnit(healing, 'a.service', { actor: 'bob@desk', reason: 'bad release' })).toMatchObject({ outcome: 'done' });
  units.set('a.service', { ...FAILED, exitStatus: 1 });
  units.stopRequested.set('a.service', undefined);
  const look = async () => (await healing.detector.detect({ fresh: true })).units[0];
  expect(await look()).toMatchObject({ condition: null, reason: expect.stringContaining('stopped on request') });
  expect(await healUnit(healing, 'a.service', DAEMON)).toMatchObject({ outcome: 'not_needed' });
  expect(starts(units)).toEqual([]);
  // In its next life nobody stopped it.
  expect(await healUnit(healing, 'a.service', PERSON)).toMatchObject({ outcome: 'healed' });
  units.set('a.service', FAILED);
  expect(await look()).toMatchObject({ condition: 'failed', withheld: null });
});

test('what the journal cannot tell it is asked less and less; a change of the unit asks it anew', async () => {
  const { units, healing, service } = await setUp();
  units.set('a.service', FAILED);
  units.stopRequested.set('a.service', undefined);
  let asked = 0;
  const { explainEnds } = service.journal;
  service.journal.explainEnds = (lives, signal) => {
    asked += 1;
    return explainEnds(lives, signal);
  };
  const look = async () => (await healing.detector.detect({ fresh: true })).units[0];
  for (let looks = 0; looks < 24; looks++) await look();
  expect(asked).toBe(4);
  healing.detector.noteChange('a.service');
  units.stopRequested.set('a.service', true);
  expect(await look()).toMatchObject({ condition: null, reason: expect.stringContaining('stopped on request') });
  for (let looks = 0; looks < 24; looks++) await look();
  expect(asked).toBe(5);
  // It rests as it did, but the last try to start it says something else.
  healing.detector.noteChange('a.service');
  units.stopRequested.set('a.service', false);
  expect(await look()).toMatchObject({ condition: 'failed' });
});

test('a unit is left alone while a slow journal has not told whether a person stopped it, for three looks', async () => {
  const { units, healing, service } = await setUp();
  units.set('a.service', FAILED);
  service.journal.explainEnds = async (lives, signal) => {
    await new Promise((done) => signal.addEventListener('abort', done));
    return lives.map(() => ({ stopRequested: undefined, startLimitHit: undefined }));
  };
  const look = async () => (await healing.detector.detect({ fresh: true })).units[0];
  expect(await look()).toMatchObject({ condition: 'failed', withheld: expect.stringContaining('has not told yet') });
  expect(await healUnit(healing, 'a.service', DAEMON)).toMatchObject({
    outcome: 'not_needed',
    why: expect.stringContaining('has not told yet'),
  });
  expect(starts(units)).toEqual([]);
  for (let looks = 0; looks < 2; looks++) await look();
  expect(await look()).toMatchObject({ condition: 'failed', withheld: null });
});

test('a unit that systemd has forgotten is told at once, not waited for as a bus that is away is', async () => {
  const { units, healing } = await setUp();
  units.set('a.service', FAILED);
  const { read } = units.manager;
  units.manager.start = async () => {
    units.manager.read = async (unit) => (unit === 'a.service' ? undefined : read(unit));
    throw new Error('Unit a.service not found.');
  };
  expect(await healUnit(healing, 'a.service', PERSON)).toMatchObject({
    outcome: 'failed',
    error: expect.stringMatching(/not found.*systemd knows it no more/),
  });
});

test('a start job that fails is a failed heal', async () => {
  const { units, healing } = await setUp();
  units.set('a.service', FAILED);
  units.onStart('a.service', { job: 'failed' });
  expect(await healUnit(healing, 'a.service', PERSON)).toMatchObject({
    outcome: 'failed',
    error: expect.stringContaining('its start job ended: failed'),
  });
});

test('outside the allowlist, or with odd characters: refused, and systemd is never asked', async () => {
  const { database, units, healing } = await setUp();
  for (const name of ['sshd.service', 'a.service; reboot', '../a.service', 'w@.service', 'a.timer', ''])
    expect(await healUnit(healing, name, PERSON)).toMatchObject({ outcome: 'refused', refused: 'not_allowed' });
  expect(units.calls).toEqual([]);
  expect(await actions(database)).toEqual([]);
});

test('an alias of a unit that nobody allowed is refused', async () => {
  const { units, healing } = await setUp();
  units.set('sshd.service', FAILED);
  const manager = { ...units.manager, read: () => units.manager.read('sshd.service') };
  expect(await healUnit({ ...healing, units: manager }, 'a.service', PERSON)).toMatchObject({ outcome: 'refused', unit: 'sshd.service' });
  expect(units.calls).toEqual([]);
});

test('two healers of one host at once, of whatever node: one heal, and the person hears how it went', async () => {
  const { url, database, units, service, healing } = await setUp();
  const other = healingOf(await openTestContext(url, { ...ENV, RECLAIMD_NODE: 'other' }, { units: service }));
  units.set('a.service', FAILED);
  const [daemon, person] = await Promise.all([healUnit(healing, 'a.service', DAEMON), healUnit(other, 'a.service', PERSON)]);
  expect(starts(units)).toHaveLength(1);
  const outcomes = [daemon.outcome, person.outcome].sort();
  expect(outcomes).toContain('healed');
  expect(person.outcome).toBe('healed');
  expect((await actions(database)).filter(({ outcome }) => outcome === 'done')).toHaveLength(1);
});

test('ten at once: one heal', async () => {
  const { units, healing } = await setUp();
  units.set('a.service', FAILED);
  await Promise.all(Array.from({ length: 10 }, () => healUnit(healing, 'a.service', PERSON)));
  expect(starts(units)).toHaveLength(1);
});

test('an intent whose healer died is taken over once its lease is over, and audited as unknown', async () => {
  const { database, units, healing } = await setUp();
  units.set('a.service', FAILED);
  const insert = (lease: string) =>
    database.query(
      `INSERT INTO unit_action (host, node, unit, action, actor, automatic, lease_until)
       VALUES ($1, 'dead', 'a.service', 'unit_heal', 'reclaimd@dead', true, now() + $2::interval)`,
      [hostname(), lease],
    );
  await insert('1 minute');
  expect(await healUnit(healing, 'a.service', DAEMON)).toMatchObject({ outcome: 'not_needed', why: 'reclaimd@dead is at it' });
  await database.query(`UPDATE unit_action SET lease_until = now() - interval '1 second'`);
  expect(await healUnit(healing, 'a.service', DAEMON)).toMatchObject({ outcome: 'healed' });
  expect((await actions(database)).map(({ actor, outcome }) => [actor, outcome])).toEqual([
    ['reclaimd@dead', 'unknown'],
    ['reclaimd@test', 'done'],
  ]);
  expect(await database.query('SELECT target, outcome FROM audit ORDER BY seq')).toEqual([
    { target: 'dead:a.service', outcome: 'unknown' },
    { target: 'test:a.service', outcome: 'done' },
  ]);
});

test('a unit whose healer died between reset and start is broken still, until somebody stops or starts it', async () => {
  const { database, units, healing } = await setUp();
  const down = { activeState: 'inactive', subState: 'dead', unitFileState: 'static', invocationId: 'reset' };
  for (const unit of ['a.service', 'b.service', 'c.service']) units.set(unit, down);
  await database.query(
    `INSERT INTO unit_action (host, node, unit, action, actor, automatic, lease_until, ended_life)
     SELECT $1, 'dead', unit, 'unit_heal', 'reclaimd@dead', true, now() - interval '1 second', 'reset' FROM unnest('{a.service,b.service}'::text[]) AS unit`,
    [hostname()],
  );
  const broken = async () =>
    (await healing.detector.detect({ fresh: true })).units.filter(({ condition }) => condition !== null).map(({ unit }) => unit);
  expect(await broken()).toEqual(['a.service', 'b.service']);
  await stopUnit(healing, 'b.service', { actor: 'bob@desk', reason: 'bad release' });
  expect(await broken()).toEqual(['a.service']);
  units.onStart('a.service', { job: 'assert', endsWell: true });
  expect(await healUnit(healing, 'a.service', DAEMON)).toMatchObject({ outcome: 'failed' });
  expect(await broken()).toEqual(['a.service']);
  units.set('a.service', { invocationId: '' });
  expect(await broken(), 'systemd has unloaded it, and the journal tells of no life').toEqual([]);
  units.lastLives.set('a.service', 'another');
  expect(await broken(), 'it has lived since').toEqual([]);
  units.lastLives.set('a.service', 'reset');
  expect(await broken()).toEqual(['a.service']);
  expect(await healUnit(healing, 'a.service', { ...DAEMON, automatic: false })).toMatchObject({ outcome: 'failed' });
  expect(await broken(), 'what was noted before stands').toEqual(['a.service']);
  units.onStart('a.service', {});
  expect(await healUnit(healing, 'a.service', DAEMON)).toMatchObject({ outcome: 'healed' });
  units.set('a.service', { ...down, invocationId: 'another' });
  expect(await broken()).toEqual([]);
});

test.each([
  ['fails', 'failed', 'failed'],
  ['is replaced by a job of somebody else', 'canceled', null],
])('a restart that takes a unit down, and whose start %s: %s is told', async (_, job, condition) => {
  const { units, healing } = await setUp();
  units.set('a.service', { unitFileState: 'static', invocationId: 'before' });
  units.onStart('a.service', { job, endsWell: true });
  expect(await restartUnit(healing, 'a.service', { actor: 'ann@desk', reason: null })).toMatchObject({ outcome: 'failed' });
  expect((await healing.detector.detect({ fresh: true })).units[0]).toMatchObject({ condition });
});

const LIMITED: Partial<UnitStatus> = { ...FAILED, result: 'start-limit-hit', unitFileState: 'static', invocationId: 'before' };

test.each<[string, (world: Awaited<ReturnType<typeof setUp>>) => Promise<unknown>]>([
  [
    'a restart that it ended badly in',
    async ({ units, healing }) => {
      units.set('a.service', { unitFileState: 'static', invocationId: 'before' });
      units.onStart('a.service', { job: 'assert' });
      await restartUnit(healing, 'a.service', { actor: 'ann@desk', reason: null });
    },
  ],
  [
    'a heal whose reset was denied',
    async ({ units, healing }) => {
      units.set('a.service', LIMITED);
      units.manager.resetFailed = () => Promise.reject(new Error('denied'));
      units.onStart('a.service', { job: 'failed' });
      const healed = await healUnit(healing, 'a.service', DAEMON);
      expect(healed).toMatchObject({ outcome: 'failed', error: 'its start job ended: failed; its reset: Error: denied' });
    },
  ],
  [
    'a heal after one that had reset it, whose job somebody else replaced',
    async ({ units, healing }) => {
      units.set('a.service', LIMITED);
      units.onStart('a.service', { job: 'assert', endsWell: true });
      await healUnit(healing, 'a.service', DAEMON);
      units.onStart('a.service', { job: 'canceled', endsWell: true });
      await healUnit(healing, 'a.service', { ...DAEMON, automatic: false });
    },
  ],
])('after %s a unit that is inactive is left alone, however it came to be', async (_, act) => {
  const world = await setUp();
  await act(world);
  world.units.set('a.service', { activeState: 'inactive', subState: 'dead', result: 'success' });
  expect((await world.healing.detector.detect({ fresh: true })).units[0]).toMatchObject({ condition: null });
});

test('a restart that was denied has ended nothing: a unit that ends well later is well', async () => {
  const { units, healing } = await setUp();
  units.set('a.service', { unitFileState: 'static', invocationId: 'before' });
  units.manager.restart = () => Promise.reject(new Error('denied'));
  expect(await restartUnit(healing, 'a.service', { actor: 'ann@desk', reason: null })).toMatchObject({ outcome: 'failed' });
  units.set('a.service', { activeState: 'inactive', subState: 'dead', result: 'success' });
  expect((await healing.detector.detect({ fresh: true })).units[0]).toMatchObject({ condition: null });
});

test("an intent whose healer died is ended by some daemon, though nobody acts on that unit again: audited once, as its beginner's", async () => {
  const { url, database } = await setUp();
  const [command] = await database.query<{ id: string }>(
    `INSERT INTO node_command (node, action, unit, actor, take_by, daemon_id, lease_until, begun_at)
     VALUES ('gone', 'unit_heal', 'c.service', 'eve@desk', now(), gen_random_uuid(), now() + interval '1 hour', now()) RETURNING id::text`,
  );
  const insert = (unit: string, actor: string, lease: string, commandId: string | null = null) =>
    database.query(
      `INSERT INTO unit_action (host, node, unit, action, actor, automatic, reason, command_id, lease_until)
       VALUES ('elsewhere', 'gone', $1, 'unit_heal', $2, false, 'it should run', $3, now() + $4::interval)`,
      [unit, actor, commandId, lease],
    );
  await insert('a.service', 'ann@desk', '-1 second');
  await insert('b.service', 'bob@desk', '1 hour');
  await insert('c.service', 'eve@desk', '-1 second', command?.id);
  await Promise.all(['x', 'y', 'z'].map((name) => startTestDaemon(url, { RECLAIMD_NODE: name })));
  await waitFor('its end', async () => (await actions(database)).filter(({ outcome }) => outcome === 'unknown').length === 2);
  const audit = () => database.query('SELECT actor, action, target, outcome, reason FROM audit');
  const told = [{ actor: 'ann@desk', action: 'unit_heal', target: 'gone:a.service', outcome: 'unknown', reason: 'it should run' }];
  expect(await audit()).toEqual(told);
  expect((await actions(database)).map(({ unit, outcome }) => [unit, outcome])).toEqual([
    ['a.service', 'unknown'],
    ['b.service', null],
    ['c.service', 'unknown'],
  ]);
});

test('ten that end the same abandoned intents at once record each of them once', async () => {
  const { database } = await setUp();
  await database.query(
    `INSERT INTO unit_action (host, node, unit, action, actor, automatic, lease_until)
     SELECT 'elsewhere', 'gone', n || '.service', 'unit_heal', 'ann@desk', false, now() FROM generate_series(1, 50) AS n`,
  );
  await Promise.all(Array.from({ length: 10 }, (_, n) => endAllAbandoned(database, `n${n}`)));
  const [audited] = await database.query(`SELECT count(*)::int AS count, count(DISTINCT target)::int AS units FROM audit`);
  expect(audited).toEqual({ count: 50, units: 50 });
});

test('one that fails, hangs or is refused keeps no other from its heal', async () => {
  const { units, healing, events, emit } = await setUp();
  for (const unit of ['a.service', 'b.service', 'c.service']) units.set(unit, FAILED);
  units.onStart('a.service', { job: 'failed' });
  const result = await healAll(healing, PERSON, emit, ['a.service', 'b.service', 'nope.service', 'c.service']);
  expect(result.healed.sort()).toEqual(['b.service', 'c.service']);
  expect(result.failed.map(({ unit }) => unit)).toEqual(['a.service']);
  expect(result.refused.map(({ unit }) => unit)).toEqual(['nope.service']);
  expect(events.at(-1)).toEqual({ phase: 'done', node: 'test', unit: null });
  expect(summary(result)).toMatch(/^healed .*; failed a\.service \(.*\); refused nope\.service/);
});

test('an enumeration that fails is an error, never a host where all is well', async () => {
  const { units, healing } = await setUp();
  units.set('a.service', FAILED);
  expect((await healing.detector.detect()).units).toHaveLength(1);
  units.breakListing(new Error('no bus'));
  // Within three seconds the look is still that one, and says how old it is.
  expect(await healing.detector.detect()).toMatchObject({ units: [{ unit: 'a.service' }], ageMs: expect.any(Number) });
  healing.detector.noteChange('a.service');
  await expect(healing.detector.detect()).rejects.toThrow('no bus');
  await expect(healAll(healing, PERSON)).rejects.toThrow('no bus');
  units.breakListing(undefined);
  expect((await healing.detector.detect()).units).toHaveLength(1);
});

test('the breaker opens after so many heals, stays open over a restart of the daemon, and a person closes it', async () => {
  const { url, database, units, service, healing } = await setUp();
  units.onStart('a.service', { diesAfterMs: 50 });
  units.set('a.service', FAILED);
  const run = () => startTestDaemon(url, ENV, { units: service });
  const opened = () =>
    waitFor('the breaker to open', async () => {
      const [row] = await database.query<{ breaker: string }>(
        `SELECT evidence->>'breaker' AS breaker FROM incident WHERE class = 'unit_flapping' AND resolved_at IS NULL`,
      );
      return row?.breaker === 'open';
    });
  const first = await run();
  await opened();
  await first.stop();
  expect(starts(units)).toHaveLength(3);

  const looksBefore = units.looks();
  const second = await run();
  await waitFor('the second daemon to look twice', () => {
    units.set('a.service', FAILED);
    return units.looks() > looksBefore + 2;
  });
  await second.stop();
  expect(starts(units)).toHaveLength(3);
  const [failed] = await database.query<{ summary: string }>(
    `SELECT summary FROM incident WHERE class = 'unit_failed' AND resolved_at IS NULL`,
  );
  expect(failed?.summary).toMatch(/a\.service on test failed: .*; healing has stopped/);
  expect((await actions(database)).map(({ outcome }) => outcome)).toEqual(['failed', 'failed', 'failed']);
  units.onStart('a.service', {});
  expect(await healUnit(healing, 'a.service', PERSON)).toMatchObject({ outcome: 'healed' });
  units.set('a.service', FAILED);
  const third = await run();
  await waitFor('a new heal', async () => (await actions(database)).length === 5);
  await waitFor('its end', async () => (await actions(database)).at(-1)?.outcome === 'done');
  await third.stop();
});

test('the daemon heals what failed, leaves alone what a person stopped, and its incident goes when the unit has settled', async () => {
  const { url, database, units, service } = await setUp();
  units.set('b.service', { ...FAILED, exitStatus: 143 });
  units.stopRequested.set('b.service', true);
  units.set('c.service', { activeState: 'inactive', subState: 'dead', inactiveEnteredAt: 2 });
  await startTestDaemon(url, ENV, { units: service });
  units.set('a.service', FAILED);
  await waitFor('the heal', async () => (await actions(database)).some(({ outcome }) => outcome === 'done'));
  await waitFor('the incidents to settle', async () => {
    const rows = await database.query<{ fingerprint: string; open: boolean }>(
      `SELECT fingerprint, resolved_at IS NULL AS open FROM incident WHERE class = 'unit_failed' ORDER BY 1`,
    );
    const open = rows.filter((row) => row.open).map(({ fingerprint }) => fingerprint);
    return (
      rows.some(({ fingerprint }) => fingerprint === 'unit_failed:test:a.service') &&
      open.length === 1 &&
      open[0] === 'unit_failed:test:c.service'
    );
  });
  expect(starts(units)).toEqual(['start a.service']);
});

test.each([
  ['RECLAIMD_HEAL=off', { RECLAIMD_HEAL: 'off' }],
  ['a dry run', { RECLAIMD_DRY_RUN: 'true' }],
])('%s reports and touches nothing', async (_, env) => {
  const { url, database, units, service } = await setUp();
  units.set('a.service', FAILED);
  await startTestDaemon(url, { ...ENV, ...env }, { units: service });
  await waitFor('the incident', async () => (await database.query(`SELECT FROM incident WHERE class = 'unit_failed'`)).length === 1);
  expect(units.calls).toEqual([]);
});

test('a stopped unit that should run is started where that was asked for', async () => {
  const { url, units, service } = await setUp();
  units.set('a.service', { activeState: 'inactive', subState: 'dead', inactiveEnteredAt: 2 });
  await startTestDaemon(url, { ...ENV, RECLAIMD_HEAL_STOPPED: 'true' }, { units: service });
  await waitFor('the start', () => starts(units).length === 1);
});

test('restarts by systemd itself within the window are flapping, over a restart of the daemon too', async () => {
  const { url, database, units, service } = await setUp();
  const env = { ...ENV, RECLAIMD_FLAP_RESTARTS: '4' };
  const seen = (restarts: number) =>
    waitFor(
      `${restarts} restarts to be noted`,
      async () => (await database.query('SELECT FROM unit_life WHERE restarts = $1', [restarts])).length === 1,
    );
  units.set('a.service', { restarts: 7 });
  const first = await startTestDaemon(url, env, { units: service });
  await seen(7);
  units.set('a.service', { restarts: 9, invocationId: 'second', activeState: 'failed', result: 'exit-code' });
  await seen(9);
  await first.stop();
  expect(await database.query(`SELECT FROM incident WHERE class = 'unit_flapping'`)).toEqual([]);
  units.set('a.service', { restarts: 2, invocationId: 'third', activeState: 'active', result: 'success' });
  await startTestDaemon(url, env, { units: service });
  const flapping = await waitFor('the incident', async () => {
    const [row] = await database.query<{ evidence: object }>(`SELECT evidence FROM incident WHERE class = 'unit_flapping'`);
    return row?.evidence;
  });
  expect(flapping).toMatchObject({ unit: 'a.service', restarts: 4 });
});
