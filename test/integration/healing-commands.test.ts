import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import type { HostAuthorize } from '../../src/authorization/authorize.ts';
import { runHeal } from '../../src/cli/heal.ts';
import { showUnits } from '../../src/cli/units.ts';
import { createFleetDatabase } from '../support/database.ts';
import { openTestContext } from '../support/executor.ts';
import { createScriptedUnits, FAILED } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';

const ENV = { RECLAIMD_UNITS: 'a b c w@', RECLAIMD_HEAL_SETTLE: '100ms' };

async function setUp(env: Record<string, string> = {}, authorize?: HostAuthorize) {
  const { url, database } = await createFleetDatabase();
  const units = createScriptedUnits();
  const service = { manager: units.manager, journal: units.journal };
  const context = await openTestContext(url, { ...ENV, ...env }, { units: service, ...(authorize ? { authorize } : {}) });
  const dependencies = context.healDependencies();
  if (!dependencies) throw new Error('no units');
  const lines: string[] = [];
  const interrupt = new AbortController();
  const surroundings = { out: (text: string) => lines.push(text), signal: interrupt.signal };
  return {
    database,
    units,
    lines,
    interrupt: () => interrupt.abort(),
    events: () => lines.map((line) => JSON.parse(line)),
    show: (options: { json?: true }) => showUnits(surroundings, context, dependencies, options),
    heal: (names: string[], options: { json?: true; reason?: string } = {}) =>
      runHeal(surroundings, context, names, { actor: 'ann@desk', ...options }),
  };
}

test('units shows state, why and the last error, and says how old its look is', async () => {
  const { units, lines, show } = await setUp();
  units.set('a.service', FAILED);
  units.set('b.service', {});
  units.lastLines.set('a.service', ['Error: no such queue']);
  await show({ json: true });
  const shown = JSON.parse(lines.join('\n'));
  expect(shown).toMatchObject({ node: 'test', ageMs: expect.any(Number) });
  expect(shown.units).toMatchObject([
    {
      unit: 'a.service',
      state: 'failed',
      condition: 'failed',
      result: 'exit-code',
      restarts: 0,
      lastError: 'Error: no such queue',
      breaker: 'closed',
    },
    { unit: 'b.service', state: 'active', condition: null, lastError: null },
  ]);
  lines.length = 0;
  await show({});
  expect(lines.join('\n')).toMatch(/a\.service\s+failed\s+exit-code, exited with status 1\s.*Error: no such queue/);
});

test('units counts the heals that were tried, however they went', async () => {
  const { units, database, lines, show } = await setUp({ RECLAIMD_HEAL_BACKOFF: '1h' });
  units.set('a.service', FAILED);
  await database.query(
    `INSERT INTO unit_action (host, unit, node, action, actor, automatic, lease_until, outcome, ended_at)
     VALUES ($1, 'a.service', 'test', 'unit_heal', 'reclaimd@test', true, clock_timestamp(), 'failed', clock_timestamp())`,
    [hostname()],
  );
  await show({});
  expect(lines.join('\n')).toMatch(/a\.service .* 1 of 3 heals tried/);
});

test('units fails when systemd cannot be asked', async () => {
  const { units, lines, show } = await setUp();
  units.breakListing(new Error('no bus'));
  await expect(show({ json: true })).rejects.toThrow('no bus');
  expect(lines).toEqual([]);
});

test('heal without names heals all that need it: a line of JSON for each event, exit code 0', async () => {
  const { database, units, lines, heal } = await setUp();
  units.set('a.service', FAILED);
  units.set('b.service', {});
  units.set('c.service', { ...FAILED, exitStatus: 143 });
  units.stopRequested.set('c.service', true);
  expect(await heal([], { json: true, reason: 'after the fix' })).toBe(0);
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    { phase: 'starting', node: 'test', unit: 'a.service' },
    { phase: 'healed', node: 'test', unit: 'a.service' },
    { phase: 'done', node: 'test', unit: null },
  ]);
  expect(await database.query('SELECT actor, target, reason FROM audit')).toEqual([
    { actor: 'ann@desk', target: 'test:a.service', reason: 'after the fix' },
  ]);
});

test.each([
  ['one failed', ['a', 'b'], 1, /healed b\.service; failed a\.service/],
  ['one is not allowed', ['b', 'sshd'], 3, /healed b\.service; refused sshd\.service/],
  ['one of another node', ['elsewhere:b'], 3, /refused elsewhere:b\.service \(there is no node elsewhere/],
  ['a template without instances', ['w@'], 3, /refused w@\.service \(no instance of w@\.service is known/],
  ['this node, spelled out', ['test:b'], 0, /healed b\.service/],
  ['one nobody knows', ['c'], 1, /failed c\.service .*no such unit/],
])('exit code and summary: %s', async (_, names, code, said) => {
  const { units, lines, heal } = await setUp();
  units.set('a.service', FAILED);
  units.onStart('a.service', { job: 'failed' });
  units.set('b.service', FAILED);
  expect(await heal(names)).toBe(code);
  expect(lines.at(-1)).toMatch(said);
});

test('a template stands for its instances that are broken', async () => {
  const { units, lines, heal } = await setUp();
  units.set('w@1.service', FAILED);
  units.set('w@2.service', {});
  units.set('w@3.service', FAILED);
  units.set('a.service', FAILED);
  expect(await heal(['w@'])).toBe(0);
  expect(lines.at(-1)).toMatch(/^healed w@[13]\.service, w@[13]\.service$/);
  expect(units.calls.filter((call) => call.startsWith('start')).sort()).toEqual(['start w@1.service', 'start w@3.service']);
});

test('--json tells the end of every unit, and of those that are left alone why', async () => {
  const { units, heal, events } = await setUp();
  units.set('a.service', {});
  expect(await heal(['a'], { json: true })).toBe(0);
  expect(events()).toEqual([
    { phase: 'left_alone', node: 'test', unit: 'a.service', why: 'it is active (running)' },
    { phase: 'done', node: 'test', unit: null },
  ]);
});

test('--json tells that systemd cannot be asked', async () => {
  const { units, heal, events } = await setUp();
  units.setBus(false);
  expect(await heal([], { json: true })).toBe(1);
  expect(events()).toEqual([
    { phase: 'failed', node: 'test', unit: null, error: 'the bus went away' },
    { phase: 'done', node: 'test', unit: null },
  ]);
  await expect(heal([])).rejects.toThrow('the bus went away');
});

test.each(['a heal of its own', 'a heal that it joined'])(
  'an interrupt ends the watching of %s at once, and says what goes on',
  async (which) => {
    const { database, units, lines, heal, interrupt } = await setUp();
    units.set('a.service', FAILED);
    units.onStart('a.service', { ends: new Promise(() => undefined) });
    if (which === 'a heal that it joined')
      await database.query(
        `INSERT INTO unit_action (host, node, unit, action, actor, automatic, lease_until)
       VALUES ($1, 'test', 'a.service', 'unit_heal', 'bob@desk', false, now() + interval '1 hour')`,
        [hostname()],
      );
    const healed = heal(['a']);
    await waitFor('its beginning', () => lines.some((line) => line.includes('starting')));
    interrupt();
    expect(await healed).toBe(1);
    expect(lines.at(-1)).toMatch(which === 'a heal of its own' ? /nobody could watch/ : /bob@desk is at it, and goes on/);
  },
);

test('a unit that is up is left alone', async () => {
  const { units, lines, heal } = await setUp();
  units.set('a.service', {});
  expect(await heal(['a'])).toBe(0);
  expect(lines).toEqual(['left alone a.service (it is active (running))']);
  expect(units.calls).toEqual([]);
});

test('the right is asked on the unit itself, not on an alias of it', async () => {
  const asked: string[] = [];
  const { units, lines, heal } = await setUp({}, (_, __, resource) => {
    if (resource.kind === 'unit') asked.push(resource.name);
    return resource.kind === 'unit' && resource.name === 'b.service';
  });
  units.set('a.service', FAILED);
  const { read } = units.manager;
  units.manager.read = (unit) => read(unit === 'b.service' ? 'a.service' : unit);
  expect(await heal(['b'])).toBe(3);
  expect(asked).toEqual(['a.service']);
  expect(lines.at(-1)).toContain('refused a.service');
  expect(units.calls).toEqual([]);
});

test('in a dry run nothing is healed', async () => {
  const { units, heal } = await setUp({ RECLAIMD_DRY_RUN: 'true' });
  units.set('a.service', FAILED);
  await expect(heal(['a'])).rejects.toThrow(/RECLAIMD_DRY_RUN/);
  expect(units.calls).toEqual([]);
});
