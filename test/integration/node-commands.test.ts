import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { describe, expect, test } from 'vitest';
import type { HostAuthorize } from '../../src/authorization/authorize.ts';
import { execute as executeCommand } from '../../src/cli/repairs.ts';
import { awaitCommand } from '../../src/commands/caller.ts';
import { type CommandRequest, holdCommand, saveCommand, takeCommand } from '../../src/commands/queries.ts';
import { refreshHeartbeats } from '../../src/executors/health.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { DatabaseUnreachable } from '../../src/postgres/errors.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair, type RepairPreview, type RepairRefused } from '../../src/repairs/preview.ts';
import { listExecutorsIn } from '../../src/repairs/unit-executors.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';
import { createScriptedUnits, FAILED } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';

const ANN = 'ann@desk';
const REASON = 'its disk is mended';
const UNIT = 'app.service';
const HEAL: CommandRequest = {
  node: 'far',
  action: 'unit_heal',
  unit: UNIT,
  actor: ANN,
  reason: REASON,
  expected: null,
  audited: null,
  executor: null,
  named: null,
};

/** A person at a desk, and a daemon far away with units that do what the test says. */
async function setUp(env: Record<string, string> = {}, authorize?: HostAuthorize) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'mail' }, { name: 'pay' }] });
  const { url, database } = fleet;
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const units = createScriptedUnits();
  units.set(UNIT, FAILED);
  const service = { manager: units.manager, journal: units.journal };
  const context = await openTestContext(url, { RECLAIMD_NODE: 'desk' }, authorize ? { authorize } : {});
  const dependencies = context.repairDependencies();
  const settings = { RECLAIMD_UNITS: 'app', RECLAIMD_HEAL: 'off', RECLAIMD_HEAL_SETTLE: '0s', ...env };
  return {
    ...fleet,
    units,
    dependencies,
    startDaemon: async (node = 'far', more: Record<string, string> = {}) => {
      const daemon = await startTestDaemon(url, { RECLAIMD_NODE: node, ...settings, ...more }, { units: service });
      await waitFor(`${node} to beat`, async () => (await database.query('SELECT FROM node WHERE node = $1', [node])).length === 1);
      return daemon;
    },
    preview: (action: string, target: string, policy?: string) =>
      previewRepair(dependencies, { action, targets: [target], actor: ANN, policy }),
    execute: (token: string, signal?: AbortSignal) =>
      executeRepair(dependencies, { token, actor: ANN, reason: REASON, ...(signal ? { signal } : {}) }),
    send: (request: Partial<CommandRequest> = {}, takeWithinSeconds = 10) =>
      database.transaction((tx) => saveCommand(tx, { ...HEAL, ...request }, takeWithinSeconds)),
    until: (id: string) => awaitCommand({ database, clock: systemClock, node: 'desk' }, id),
    command: async (id: string) => {
      const [row] = await database.query<{ outcome: string | null; daemonId: string | null; leaseSeconds: number }>(
        `SELECT outcome, daemon_id AS "daemonId", extract(epoch FROM lease_until - now())::float8 AS "leaseSeconds" FROM node_command WHERE id = $1`,
        [id],
      );
      return row;
    },
    audit: () =>
      database.query<{ actor: string; action: string; target: string; outcome: string; reason: string | null; detail: object }>(
        `SELECT actor, action, target, outcome, reason, detail FROM audit WHERE action <> 'sweep' ORDER BY seq`,
      ),
    starts: () => units.calls.filter((call) => call.startsWith('start')),
  };
}

function tokenOf(result: RepairPreview | RepairRefused): string {
  if (!result.done || result.token === null) throw new Error(JSON.stringify(result));
  return result.token;
}

const HEALED = { actor: ANN, action: 'unit_heal', target: `far:${UNIT}`, outcome: 'done', reason: REASON };

describe('a token that was used has one audit record, of who used it and why', () => {
  test('of a heal', async () => {
    const { startDaemon, preview, execute, audit, units } = await setUp();
    await startDaemon();
    expect(await execute(tokenOf(await preview('unit_heal', 'far:app')))).toMatchObject({ done: true, partial: false });
    expect(units.calls).toEqual([`start ${UNIT}`]);
    const events = await audit();
    expect(events).toMatchObject([HEALED]);
    expect(events[0]?.detail).toMatchObject({ unit: `far:${UNIT}`, did: [{ action: 'unit_heal', outcome: 'done', condition: 'failed' }] });
  });

  test('when the daemon had it under way by itself: that heal has its own', async () => {
    const { startDaemon, preview, execute, audit, units, database } = await setUp();
    const started = Promise.withResolvers<void>();
    units.onStart(UNIT, { ends: started.promise });
    await startDaemon('far', { RECLAIMD_HEAL: 'auto' });
    await waitFor('the heal', () => units.calls.length > 0);
    units.set(UNIT, FAILED);
    const executing = execute(tokenOf(await preview('unit_heal', 'far:app')));
    const joined = `SELECT FROM node_command_event WHERE event->>'phase' = 'starting'`;
    await waitFor('it to be joined', async () => (await database.query(joined)).length === 1);
    started.resolve();
    expect(await executing).toMatchObject({ done: true, partial: false });
    expect(await audit()).toMatchObject([
      { actor: 'reclaimd@far', outcome: 'done', reason: null },
      { ...HEALED, detail: { note: 'reclaimd@far had it under way', did: [] } },
    ]);
  });

  test('when systemd cannot be asked', async () => {
    const { startDaemon, preview, execute, audit, units } = await setUp();
    await startDaemon();
    const token = tokenOf(await preview('unit_heal', 'far:app'));
    units.manager.read = async () => {
      throw new Error('D-Bus is gone');
    };
    expect(await execute(token)).toMatchObject({ targets: [{ outcome: 'failed', error: 'D-Bus is gone' }] });
    expect(await audit()).toMatchObject([{ ...HEALED, outcome: 'failed', detail: { error: 'D-Bus is gone' } }]);
  });

  test('when it was up before anything was done', async () => {
    const { startDaemon, preview, execute, audit, units } = await setUp();
    await startDaemon();
    const token = tokenOf(await preview('unit_heal', 'far:app'));
    const { read } = units.manager;
    let reads = 0;
    units.manager.read = async (unit) => {
      reads += 1;
      if (reads === 2) units.set(UNIT, { activeState: 'active', subState: 'running', result: 'success' });
      return read(unit);
    };
    expect(await execute(token)).toMatchObject({ done: true, partial: false });
    expect(units.calls).toEqual([]);
    expect(await audit()).toMatchObject([{ ...HEALED, detail: { note: expect.stringContaining('it is active') } }]);
  });

  test('when it has drifted, though nobody waits for it any more', async () => {
    const { startDaemon, preview, execute, audit, units } = await setUp();
    await startDaemon();
    const token = tokenOf(await preview('unit_heal', 'far:app'));
    units.set(UNIT, { activeState: 'active' });
    const goesOn = { outcome: 'unknown', error: expect.stringContaining('it goes on at far') };
    expect(await execute(token, AbortSignal.abort())).toMatchObject({ partial: true, targets: [goesOn] });
    const events = await waitFor('the record', async () => {
      const rows = await audit();
      return rows.length > 0 && rows;
    });
    expect(events).toMatchObject([{ ...HEALED, outcome: 'drifted', detail: { drifted: [{ drift: 'it was failed, is active' }] } }]);
    expect(units.calls).toEqual([]);
  });

  test.each([
    ['nobody began it', null, 'failed', /nothing was done/],
    ['its daemon died at it', 'open', 'unknown', /did not come back/],
    ['its daemon died before it could tell', 'done', 'done', undefined],
  ])('when caller and daemon are both gone and %s: written by another daemon, once', async (_, action, outcome, error) => {
    const { startDaemon, send, until, command, audit, database } = await setUp();
    const id = await send();
    await database.query(
      `UPDATE node_command SET daemon_id = $2, lease_until = now() - interval '1 s', take_by = now() - interval '1 s',
         begun_at = CASE WHEN $3 THEN now() END WHERE id = $1`,
      [id, randomUUID(), action !== null],
    );
    if (action !== null)
      await database.query(
        `INSERT INTO unit_action (host, node, unit, action, actor, automatic, command_id, lease_until, outcome)
         VALUES ($5, 'far', $1, 'unit_heal', $2, false, $3, now() - interval '1 s', $4)`,
        [UNIT, ANN, id, action === 'done' ? 'done' : null, hostname()],
      );
    await startDaemon('another');
    await waitFor('the end', async () => (await command(id))?.outcome !== null);
    const events = await audit();
    expect(events).toMatchObject([{ ...HEALED, outcome, ...(error ? { detail: { error: expect.stringMatching(error) } } : {}) }]);
    // The unit's next healer ends what was left there, and adds nothing to it.
    await startDaemon();
    expect(await until(await send())).toMatchObject({ outcome: 'done' });
    expect(await audit()).toMatchObject([{ outcome }, HEALED]);
  });

  test('and none where it cannot be written: then the command has not ended', async () => {
    const { startDaemon, send, command, database, units } = await setUp();
    await startDaemon();
    await database.query('ALTER TABLE audit ADD CONSTRAINT closed CHECK (false)');
    const id = await send();
    await waitFor('the heal', async () => (await database.query(`SELECT FROM unit_action WHERE outcome = 'done'`)).length === 1);
    expect(units.calls).toContain(`start ${UNIT}`);
    expect((await command(id))?.outcome).toBeNull();
    await database.query('ALTER TABLE audit DROP CONSTRAINT closed');
    await database.query(`UPDATE node_command SET lease_until = now() - interval '1 s'`);
    await waitFor('its end', async () => (await command(id))?.outcome === 'done');
  });
});

test('a preview for a node that there is not says so first', async () => {
  const { preview } = await setUp();
  expect(await preview('unit_heal', 'web-9:app')).toMatchObject({
    done: false,
    message: expect.stringMatching(/^there is no node web-9 /),
  });
});

describe('a command is carried out', () => {
  test('only by a daemon of its node', async () => {
    const { startDaemon, send, until, command, starts } = await setUp();
    await startDaemon('near');
    const far = await send();
    expect(await until(await send({ node: 'near', action: 'look' }))).toMatchObject({ outcome: 'done', answer: { unit: UNIT } });
    expect(await command(far)).toMatchObject({ outcome: null, daemonId: null });
    expect(starts()).toEqual([]);
    await startDaemon('far');
    expect(await until(far)).toMatchObject({ outcome: 'done' });
  });

  test('only in time: later it never is', async () => {
    const { startDaemon, send, until, command, starts, audit } = await setUp();
    const late = await send({}, -1);
    await startDaemon();
    await until(await send({ action: 'look' }));
    expect(await until(late)).toMatchObject({ outcome: 'expired', error: expect.stringContaining('nothing was done') });
    expect(await command(late)).toMatchObject({ daemonId: null });
    expect(starts()).toEqual([]);
    expect(await audit()).toMatchObject([{ ...HEALED, outcome: 'failed' }]);
  });

  test('for longer than its lease, which is renewed meanwhile', async () => {
    const { startDaemon, send, until, command, database, units } = await setUp();
    await startDaemon();
    const started = Promise.withResolvers<void>();
    units.onStart(UNIT, { ends: started.promise });
    const id = await send();
    await waitFor('it to begin', () => units.calls.includes(`start ${UNIT}`));
    await database.query(`UPDATE node_command SET lease_until = now() + interval '6 s'`);
    await waitFor('the renewal', async () => ((await command(id))?.leaseSeconds ?? 0) > 10);
    started.resolve();
    expect(await until(id)).toMatchObject({ outcome: 'done' });
  });

  test('never by a daemon that comes to it when its caller was told that it is over', async () => {
    const { startDaemon, preview, execute, audit, database, units, starts } = await setUp();
    await startDaemon();
    const token = tokenOf(await preview('unit_heal', 'far:app'));
    const frozen = Promise.withResolvers<void>();
    const { read } = units.manager;
    units.manager.read = async (unit) => frozen.promise.then(() => read(unit));
    const executing = execute(token);
    await waitFor('it to be taken', async () => (await database.query('SELECT FROM node_command WHERE outcome IS NULL')).length === 1);
    await waitFor(
      'its lease to be over',
      async () =>
        (await database.query(`UPDATE node_command SET lease_until = now() WHERE daemon_id IS NOT NULL AND outcome IS NULL RETURNING 1`))
          .length === 1,
    );
    expect(await executing).toMatchObject({ targets: [{ outcome: 'failed', error: expect.stringContaining('nothing was done') }] });
    frozen.resolve();
    const look = await preview('unit_heal', 'far:app');
    expect(look.done).toBe(true);
    expect(starts()).toEqual([]);
    expect(await audit()).toMatchObject([{ ...HEALED, outcome: 'failed' }]);
  });

  test('of an alias never: the right was asked on another name', async () => {
    const { startDaemon, send, until, units, starts } = await setUp({ RECLAIMD_UNITS: 'app other' });
    await startDaemon();
    const { read } = units.manager;
    units.manager.read = (unit) => read(unit === 'other.service' ? UNIT : unit);
    expect(await until(await send({ unit: 'other.service' }))).toMatchObject({ outcome: 'refused', error: expect.stringContaining(UNIT) });
    expect(starts()).toEqual([]);
  });
});

test('a unit that cannot be repaired is refused with what to do next', async () => {
  const { startDaemon, preview, units } = await setUp({ RECLAIMD_UNITS: 'app gone' });
  const daemon = await startDaemon();
  const refusal = async (target: string) => {
    const result = await preview('unit_heal', target);
    return result.done ? 'none' : result.message;
  };
  expect(await refusal('far:secret')).toMatch(/RECLAIMD_UNITS there: `reclaimd units` on that node/);
  expect(await refusal('far:gone')).toMatch(/no such unit there: `reclaimd units` on that node/);
  units.set(UNIT, { activeState: 'activating', subState: 'auto-restart' });
  expect(await refusal('far:app')).toMatch(/it is activating \(auto-restart\): .* unit_restart restarts it/);
  await daemon.stop();
  expect(await refusal('far:app')).toMatch(/the daemon of far was stopped: start it again/);
});

test('a restart while another is at it is refused, and says what to do when that is over', async () => {
  const { startDaemon, preview, execute, units } = await setUp();
  await startDaemon();
  const over = Promise.withResolvers<void>();
  units.onStart(UNIT, { ends: over.promise });
  const first = execute(tokenOf(await preview('unit_restart', 'far:app')));
  try {
    await waitFor('its restart', () => units.calls.includes(`restart ${UNIT}`));
    expect(await execute(tokenOf(await preview('unit_restart', 'far:app')))).toMatchObject({
      refused: 'denied',
      message: `${ANN} is at it: make a new preview when that is over`,
    });
  } finally {
    over.resolve();
  }
  expect(await first).toMatchObject({ done: true, partial: false });
});

describe('what the daemon before has taken', () => {
  const taken = async (world: Awaited<ReturnType<typeof setUp>>, begun: boolean, request: Partial<CommandRequest> = {}) => {
    const id = await world.send(request);
    const before = randomUUID();
    await world.database.query(
      `UPDATE node_command SET daemon_id = $2, lease_until = now() + interval '15 s', begun_at = CASE WHEN $3 THEN now() END WHERE id = $1`,
      [id, before, begun],
    );
    return { id, before };
  };

  test.each(['look', 'unit_heal'] as const)('and not begun is taken over: %s', async (action) => {
    const world = await setUp();
    const { id, before } = await taken(world, false, { action });
    await world.startDaemon();
    expect(await world.until(id)).toMatchObject({ outcome: 'done' });
    expect(await world.database.transaction((tx) => holdCommand(tx, id, before, 15))).toBe(false);
  });

  test('and begun is not: nobody runs anything twice', async () => {
    const world = await setUp();
    const { id } = await taken(world, true);
    await world.startDaemon();
    await world.until(await world.send({ action: 'look' }));
    await world.database.query(`UPDATE node_command SET lease_until = now() WHERE id = $1`, [id]);
    expect(await world.until(id)).toMatchObject({ outcome: 'unknown' });
    expect(world.starts()).toEqual([]);
  });

  test('is its own while it is the daemon of the node, and it cannot begin what another has', async () => {
    const world = await setUp();
    const { id, before } = await taken(world, false);
    const other = randomUUID();
    expect(await takeCommand(world.database, 'far', other, 15)).toBeUndefined();
    expect(await world.database.transaction((tx) => holdCommand(tx, id, other, 15))).toBe(false);
    expect(await world.database.transaction((tx) => holdCommand(tx, id, before, 15))).toBe(true);
  });
});

test('a unit in another substate, or whose last result is another, is not as it was shown', async () => {
  const { startDaemon, preview, execute, units } = await setUp();
  units.set(UNIT, { activeState: 'active', subState: 'running', result: 'success' });
  await startDaemon();
  const running = tokenOf(await preview('unit_restart', 'far:app'));
  units.set(UNIT, { activeState: 'active', subState: 'exited', result: 'success' });
  expect(await execute(running)).toMatchObject({ message: 'it was active (running), is active (exited): make a new preview' });
  const well = tokenOf(await preview('unit_restart', 'far:app'));
  units.set(UNIT, { activeState: 'active', subState: 'exited', result: 'exit-code' });
  expect(await execute(well)).toMatchObject({ message: 'its result was success, is exit-code: make a new preview' });
  expect(units.calls).toEqual([]);
});

describe('who runs in a unit is part of the plan', () => {
  const UNSHOWN = `late runs in ${UNIT} by now, and was not shown`;

  async function setUpRunning() {
    const world = await setUp();
    world.units.set(UNIT, { activeState: 'active', subState: 'running', result: 'success' });
    await world.startDaemon();
    const enter = async (id: string) => {
      await refreshHeartbeats(world.database, [{ executorId: id, beatSeconds: 60 }]);
      await world.database.query('UPDATE executor SET host = $2, unit = $3 WHERE id = $1', [id, hostname(), UNIT]);
    };
    await enter('first');
    return { ...world, enter };
  }

  test('of a restart: one that came since is not ended with it; one that has ended since is missed by nobody', async () => {
    const { preview, execute, enter, database, units, audit } = await setUpRunning();
    const shown = await preview('unit_restart', 'far:app');
    expect(shown).toMatchObject({
      plan: { unit: { executors: [{ id: 'first', lives: true }], warnings: [expect.stringMatching(/1 living executor .*: first$/)] } },
    });
    await enter('late');
    expect(await execute(tokenOf(shown))).toMatchObject({ refused: 'drifted', message: `${UNSHOWN}: make a new preview` });
    expect(units.calls).toEqual([]);
    expect(await database.query(`SELECT FROM node_command WHERE action <> 'look'`)).toEqual([]);
    expect(await audit()).toMatchObject([{ outcome: 'drifted', detail: { drifted: [{ target: `far:${UNIT}`, drift: UNSHOWN }] } }]);
    const again = tokenOf(await preview('unit_restart', 'far:app'));
    await database.query(`UPDATE executor SET stopped_at = now() WHERE id = 'late'`);
    expect(await execute(again)).toMatchObject({ done: true, partial: false });
    expect(units.calls).toEqual([`restart ${UNIT}`]);
  });

  test('of a heal: one that came since is a drift, too', async () => {
    const { preview, execute, enter, units } = await setUpRunning();
    units.set(UNIT, FAILED);
    const token = tokenOf(await preview('unit_heal', 'far:app'));
    await enter('late');
    expect(await execute(token)).toMatchObject({ refused: 'drifted', message: expect.stringContaining(UNSHOWN) });
    expect(units.calls).toEqual([]);
  });

  test('and looked at once more by the node, right before it acts', async () => {
    const { preview, execute, enter, units, audit } = await setUpRunning();
    const token = tokenOf(await preview('unit_restart', 'far:app'));
    const { read } = units.manager;
    units.manager.read = async (unit) => {
      await enter('late');
      return read(unit);
    };
    expect(await execute(token)).toMatchObject({ refused: 'drifted', message: expect.stringContaining(UNSHOWN) });
    expect(units.calls).toEqual([]);
    expect(await audit()).toMatchObject([{ outcome: 'drifted', detail: { drifted: [{ drift: UNSHOWN }] } }]);
  });

  test('of whom no daemon knows it yet, by the process', async () => {
    const { database } = await setUpRunning();
    await refreshHeartbeats(database, [
      { executorId: 'new', beatSeconds: 60, host: hostname(), pid: 4711 },
      { executorId: 'elsewhere', beatSeconds: 60, host: 'elsewhere', pid: 4711 },
      { executorId: 'another', beatSeconds: 60, host: hostname(), pid: 4712 },
    ]);
    const unitOf = (pid: number) => (pid === 4711 ? UNIT : 'other.service');
    expect((await listExecutorsIn(database, hostname(), UNIT, unitOf)).map(({ id }) => id)).toEqual(['first', 'new']);
    expect((await listExecutorsIn(database, hostname(), UNIT)).map(({ id }) => id)).toEqual(['first']);
  });

  test('of a stop: the others, too', async () => {
    const { preview, execute, enter, database, units } = await setUpRunning();
    await database.query(`UPDATE executor SET witness_node = 'far' WHERE id = 'first'`);
    const shown = await preview('executor_stop_and_rescue', 'first');
    expect(shown).toMatchObject({ plan: { unit: { executors: [{ id: 'first', lives: true }] } } });
    await enter('late');
    expect(await execute(tokenOf(shown))).toMatchObject({ refused: 'drifted', message: expect.stringContaining(UNSHOWN) });
    expect(units.calls).toEqual([]);
    expect(await preview('executor_stop_and_rescue', 'first')).toMatchObject({
      plan: { unit: { warnings: expect.arrayContaining([expect.stringMatching(/1 living executor .*: late$/)]) } },
    });
  });
});

test('interrupted, execute says that it goes on, and fails', async () => {
  const { url, startDaemon, preview, audit, units } = await setUp();
  await startDaemon();
  const started = Promise.withResolvers<void>();
  units.onStart(UNIT, { ends: started.promise });
  const token = tokenOf(await preview('unit_heal', 'far:app'));
  const lines: string[] = [];
  const interrupt = new AbortController();
  const surroundings = {
    env: { DATABASE_URL: url, RECLAIMD_NODE: 'desk' },
    out: (text: string) => lines.push(text),
    signal: interrupt.signal,
  };
  const code = executeCommand(surroundings, token, { actor: ANN, reason: REASON });
  await waitFor('the start', () => units.calls.includes(`start ${UNIT}`));
  interrupt.abort();
  expect(await code).toBe(1);
  expect(await audit()).toEqual([]);
  expect(lines.join('\n')).toContain('it goes on at far: `reclaimd audit list` will say what it did');
  started.resolve();
  await waitFor('the record', async () => (await audit()).length === 1);
});

test('a command whose sending has lost its answer is waited for all the same', async () => {
  const { startDaemon, preview, dependencies, audit } = await setUp();
  await startDaemon();
  const token = tokenOf(await preview('unit_heal', 'far:app'));
  const { database } = dependencies;
  let sent = false;
  const transaction: typeof database.transaction = async (work) => {
    const result = await database.transaction(work);
    if (sent) return result;
    sent = true;
    throw new DatabaseUnreachable('the line was cut', undefined, undefined);
  };
  const result = await executeRepair({ ...dependencies, database: { ...database, transaction } }, { token, actor: ANN, reason: REASON });
  expect(result).toMatchObject({ done: true, partial: false, targets: [{ target: `far:${UNIT}`, outcome: 'done', state: 'active' }] });
  expect(await audit()).toMatchObject([HEALED]);
});

test('a fault while it waits is no failure of the heal', async () => {
  const { startDaemon, preview, dependencies, audit } = await setUp();
  await startDaemon();
  const token = tokenOf(await preview('unit_heal', 'far:app'));
  const { database } = dependencies;
  const query: typeof database.query = async (text, values) => {
    if (text.includes('FROM node_command c WHERE c.id')) throw new Error('the line was cut');
    return database.query(text, values);
  };
  const result = await executeRepair({ ...dependencies, database: { ...database, query } }, { token, actor: ANN, reason: REASON });
  expect(result).toMatchObject({ partial: true, targets: [{ outcome: 'unknown', error: expect.stringMatching(/cut.*goes on at far/) }] });
  await waitFor('the record', async () => (await audit()).length === 1);
  expect(await audit()).toMatchObject([HEALED]);
});

describe('executor_stop_and_rescue', () => {
  async function setUpExecutor(env: Record<string, string> = {}, authorize?: HostAuthorize, { dies = true } = {}) {
    const world = await setUp(env, authorize);
    const { units, url, database, boss } = world;
    units.set(UNIT, { activeState: 'active', subState: 'running', result: 'success' });
    await world.startDaemon();
    const executor = await createExecutor(url, database, 'worker');
    const id = (await boss.send('pay', {})) ?? '';
    await executor.fetch('pay');
    await database.query(
      `UPDATE executor SET unit = $1, host = $2, witness_node = 'far', beat_seconds = 60, beat_at = now() WHERE id = 'worker'`,
      [UNIT, hostname()],
    );
    const { stop } = units.manager;
    units.manager.stop = async (unit) => {
      if (dies) await executor.die();
      return stop(unit);
    };
    const state = async () => (await boss.findJobs('pay', { id }))[0]?.state;
    return { ...world, executor, id, state };
  }
  const RECORD = { actor: ANN, action: 'executor_stop_and_rescue', target: 'worker', reason: REASON };

  test('shows the attempts that will be given back, waits for them, and is audited as itself, once', async () => {
    const { preview, execute, audit, id, state, units } = await setUpExecutor();
    const shown = await preview('executor_stop_and_rescue', 'worker');
    expect(shown).toMatchObject({
      plan: {
        unit: { command: 'unit_stop' },
        jobs: [{ target: `pay/${id}`, before: { verdict: 'alive' }, policy: 'fail', after: 'retry' }],
      },
    });
    const done = { target: 'worker', outcome: 'done', state: 'dead, holds no attempt any more' };
    expect(await execute(tokenOf(shown))).toMatchObject({ partial: false, targets: [done] });
    expect(units.calls).toEqual([`stop ${UNIT}`]);
    expect(await state()).toBe('retry');
    expect(await audit()).toMatchObject([{ ...RECORD, outcome: 'done', detail: { unit: `far:${UNIT}` } }]);
  });

  test('runs in its unit for every daemon of the host, whichever holds it in sight', async () => {
    const { startDaemon, preview } = await setUpExecutor();
    await startDaemon('near');
    for (const node of ['far', 'near'])
      expect(await preview('unit_restart', `${node}:app`)).toMatchObject({
        plan: { unit: { warnings: [expect.stringContaining('1 living executor')] } },
      });
  });

  test('that frees nothing has failed', async () => {
    const { preview, execute, audit, state } = await setUpExecutor({}, undefined, { dies: false });
    const result = await execute(tokenOf(await preview('executor_stop_and_rescue', 'worker')));
    expect(result).toMatchObject({
      partial: true,
      targets: [{ outcome: 'failed', error: expect.stringMatching(/it is alive.*1 of its attempts/) }],
    });
    expect(await state()).toBe('active');
    expect(await audit()).toMatchObject([{ ...RECORD, outcome: 'failed' }]);
  });

  test('whose attempts a policy holds is done in part, unless another policy is named', async () => {
    const { preview, execute, audit, state, id } = await setUpExecutor({ RECLAIMD_POLICIES: 'pay=hold' });
    const shown = await preview('executor_stop_and_rescue', 'worker');
    // The policies of this desk are others: it is the daemon that holds.
    const result = await execute(tokenOf(shown));
    expect(result).toMatchObject({
      partial: true,
      targets: [{ outcome: 'failed', error: expect.stringContaining('holds 1 of its attempts') }],
    });
    expect(await state()).toBe('active');
    expect(await audit()).toMatchObject([{ ...RECORD, outcome: 'partial' }]);
    expect(id).not.toBe('');
  });

  test('with a policy that is named gives them back by that one', async () => {
    const { preview, execute, state } = await setUpExecutor({ RECLAIMD_POLICIES: 'pay=hold' });
    const shown = await preview('executor_stop_and_rescue', 'worker', 'discard');
    expect(shown).toMatchObject({ plan: { jobs: [{ policy: 'discard', after: 'failed' }] } });
    expect(await execute(tokenOf(shown))).toMatchObject({ partial: false });
    expect(await state()).toBe('failed');
  });

  test('of poison by a policy that is named moves it on, recorded as poison: no incident', async () => {
    const { preview, execute, state, database } = await setUpExecutor({ RECLAIMD_MAX_RECOVERIES: '0' });
    expect(await execute(tokenOf(await preview('executor_stop_and_rescue', 'worker', 'restart')))).toMatchObject({ partial: false });
    expect(await state()).toBe('retry');
    expect(await database.query('SELECT policy_source, poison FROM recovery')).toEqual([{ policy_source: 'operator', poison: true }]);
    expect(await database.query(`SELECT FROM incident WHERE class = 'poison_job'`)).toEqual([]);
  });

  test('of poison that nobody named a policy for shows what its sweep makes of it', async () => {
    const { preview, database } = await setUpExecutor();
    await database.query(`INSERT INTO policy (queue, policy, max_recoveries, updated_by) VALUES ('pay', 'fail', 0, 'bob@desk')`);
    expect(await preview('executor_stop_and_rescue', 'worker')).toMatchObject({
      plan: { jobs: [{ policy: 'discard', after: 'failed', warnings: expect.arrayContaining([expect.stringContaining('it is poison')]) }] },
    });
  });

  test('that leaves out something that is held has a token of its own', async () => {
    const { preview, execute, boss, executor, id, database, units } = await setUpExecutor();
    const without = tokenOf(await preview('executor_stop_and_rescue', 'worker'));
    await database.query(`INSERT INTO policy (queue, policy, updated_by) VALUES ('mail', 'hold', 'bob@desk')`);
    const held = await boss.send('mail', {});
    await executor.fetch('mail');
    const shown = await preview('executor_stop_and_rescue', 'worker');
    expect(shown).toMatchObject({ plan: { jobs: [{ target: `pay/${id}` }], leftOut: [{ target: `mail/${held}` }] } });
    expect(tokenOf(shown)).not.toBe(without);
    expect(await execute(without)).toMatchObject({ refused: 'drifted' });
    const goesBy = (policy: string) => database.query(`UPDATE policy SET policy = $1 WHERE queue = 'mail'`, [policy]);
    await goesBy('fail');
    expect(await execute(tokenOf(shown))).toMatchObject({
      refused: 'drifted',
      message: expect.stringContaining(`mail/${held}: it was left out (its policy is to hold it`),
    });
    await goesBy('hold');
    expect(await execute(tokenOf(await preview('executor_stop_and_rescue', 'worker')))).toMatchObject({ done: true });
    expect(units.calls).toEqual([`stop ${UNIT}`]);
  });

  test('names the policy for what it showed alone: what the executor takes before it stops goes by its own', async () => {
    const { preview, execute, state, boss, executor, units } = await setUpExecutor();
    const token = tokenOf(await preview('executor_stop_and_rescue', 'worker', 'discard'));
    const later = (await boss.send('mail', {})) ?? '';
    const { stop } = units.manager;
    units.manager.stop = async (unit) => {
      await executor.fetch('mail');
      return stop(unit);
    };
    expect(await execute(token)).toMatchObject({ partial: false });
    expect(await state()).toBe('failed');
    expect((await boss.findJobs('mail', { id: later }))[0]?.state).toBe('retry');
  });

  test('that failed leaves no policy behind: what becomes of its executor later, nobody was shown', async () => {
    const { preview, execute, state, executor, units } = await setUpExecutor();
    units.manager.stop = async () => {
      throw new Error('access denied');
    };
    const token = tokenOf(await preview('executor_stop_and_rescue', 'worker', 'discard'));
    expect(await execute(token)).toMatchObject({ targets: [{ outcome: 'failed', error: expect.stringContaining('access denied') }] });
    await executor.die();
    await waitFor('its sweep', async () => (await state()) !== 'active');
    expect(await state()).toBe('retry');
  });

  test('of one that has begun something else by now is refused; what it has finished is no drift', async () => {
    const { preview, execute, boss, executor, id, units } = await setUpExecutor();
    const token = tokenOf(await preview('executor_stop_and_rescue', 'worker'));
    const other = await boss.send('mail', {});
    await executor.fetch('mail');
    expect(await execute(token)).toMatchObject({
      refused: 'drifted',
      message: expect.stringContaining(`mail/${other}: its executor has it`),
    });
    expect(units.calls).toEqual([]);
    const again = tokenOf(await preview('executor_stop_and_rescue', 'worker'));
    await executor.boss.complete('pay', { id, retryCount: 0 });
    expect(await execute(again)).toMatchObject({ done: true, partial: false });
  });

  test('of more attempts than can be shown is refused', async () => {
    const { preview, execute, boss, executor, units } = await setUpExecutor();
    await boss.insert(
      'mail',
      Array.from({ length: 1000 }, () => ({})),
    );
    await executor.fetch('mail', 999);
    const shown = await preview('executor_stop_and_rescue', 'worker', 'discard');
    await executor.fetch('mail');
    const refusal = 'worker holds 1001 attempts, more than the 1000 that one plan can show';
    expect(await execute(tokenOf(shown))).toMatchObject({ refused: 'drifted', message: expect.stringContaining(refusal) });
    expect(await preview('executor_stop_and_rescue', 'worker', 'discard')).toMatchObject({
      refused: 'impossible',
      message: expect.stringContaining(refusal),
    });
    expect(units.calls).toEqual([]);
  });

  test('wants the right on the unit and on the queues of what the executor holds', async () => {
    const onUnits: HostAuthorize = (_, __, resource) => resource.kind === 'unit';
    const onQueues: HostAuthorize = (_, __, resource) => resource.kind === 'executor' && resource.queues.join() === 'pay';
    const both: HostAuthorize = (...asked) => onUnits(...asked) || onQueues(...asked);
    for (const [authorize, may] of [
      [onUnits, false],
      [onQueues, false],
      [both, true],
    ] as const) {
      const { preview } = await setUpExecutor({}, authorize as HostAuthorize);
      expect(await preview('executor_stop_and_rescue', 'worker')).toMatchObject({ token: may ? expect.any(String) : null });
    }
  });
});
