import { expect, test } from 'vitest';
import { heal } from '../../src/cli/heal.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair, type RepairPreview, type RepairRefused } from '../../src/repairs/preview.ts';
import { describeWithMachine } from '../support/describe-with-machine.ts';
import { openTestContext } from '../support/executor.ts';
import { createMachineFleet, type MachineOptions, waitForAdopted } from '../support/machine-fleet.ts';
import type { Machine } from '../support/systemd-machine.ts';
import { waitFor } from '../support/wait.ts';

const ANN = 'ann@desk';
const REASON = 'its disk is mended';

/** A person at a desk, and a machine far away that heals nothing by itself. */
async function setUp(options: MachineOptions = {}) {
  const fleet = await createMachineFleet();
  const env = { RECLAIMD_UNITS: 'app worker@', RECLAIMD_HEAL: 'off', ...options.env };
  const machine = await fleet.addMachine('far', { ...options, env });
  await machine.writeUnits({
    'app.service': '[Service]\nExecStart=/bin/sleep 600\n',
    'secret.service': '[Service]\nExecStart=/bin/sleep 600\n',
  });
  const context = await openTestContext(fleet.url, { RECLAIMD_NODE: 'desk' });
  const dependencies = context.repairDependencies();
  await waitFor('the far daemon', async () => (await fleet.database.query(`SELECT FROM node WHERE node = 'far'`)).length === 1);
  return {
    ...fleet,
    machine,
    preview: (action: string, target: string) => previewRepair(dependencies, { action, targets: [target], actor: ANN }),
    execute: (token: string, onEvent?: (event: object) => void) =>
      executeRepair(dependencies, { token, actor: ANN, reason: REASON, ...(onEvent ? { onEvent } : {}) }),
    audit: () => fleet.database.query('SELECT actor, action, target, outcome, reason FROM audit ORDER BY seq'),
  };
}

async function fail(machine: Machine, unit: string): Promise<void> {
  await machine.run('systemctl', ['start', unit]);
  await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', unit]);
  await waitFor('it to have failed', async () => (await machine.property(unit, 'ActiveState')) === 'failed');
}

function tokenOf(result: RepairPreview | RepairRefused): string {
  if (!result.done || result.token === null) throw new Error(JSON.stringify(result));
  return result.token;
}

describeWithMachine('repairs of units on another node', () => {
  test('unit_heal and unit_restart: carried out there, told here as it happens, audited once, by the name of who asked', async () => {
    const { machine, preview, execute, audit } = await setUp();
    await fail(machine, 'app');
    const shown = await preview('unit_heal', 'far:app');
    expect(shown).toMatchObject({
      plan: { unit: { node: 'far', unit: 'app.service', before: { activeState: 'failed', result: 'signal' }, after: 'active' } },
    });
    const events: object[] = [];
    expect(await execute(tokenOf(shown), (event) => events.push(event))).toMatchObject({
      done: true,
      partial: false,
      targets: [{ target: 'far:app.service', outcome: 'done', state: 'active' }],
    });
    expect(events).toEqual([
      { phase: 'starting', node: 'far', unit: 'app.service' },
      { phase: 'healed', node: 'far', unit: 'app.service' },
    ]);
    expect(await execute(tokenOf(shown))).toMatchObject({ refused: 'used' });
    const life = await machine.property('app', 'InvocationID');
    expect(await execute(tokenOf(await preview('unit_restart', 'far:app')))).toMatchObject({ done: true, partial: false });
    expect(await machine.property('app', 'InvocationID')).not.toBe(life);
    expect(await audit()).toEqual([
      { actor: ANN, action: 'unit_heal', target: 'far:app.service', outcome: 'done', reason: REASON },
      { actor: ANN, action: 'unit_heal', target: 'far:app.service', outcome: 'denied', reason: REASON },
      { actor: ANN, action: 'unit_restart', target: 'far:app.service', outcome: 'done', reason: REASON },
    ]);
  });

  test('heal NODE:UNIT, without a preview: told and audited the same', async () => {
    const { machine, url, audit } = await setUp();
    await fail(machine, 'app');
    const lines: string[] = [];
    const surroundings = {
      env: { DATABASE_URL: url, RECLAIMD_NODE: 'desk', RECLAIMD_SYSTEMD: 'off' },
      out: (text: string) => lines.push(text),
      signal: new AbortController().signal,
    };
    expect(await heal(surroundings, ['far:app'], { actor: ANN, reason: REASON })).toBe(0);
    expect(lines).toEqual(['far:app.service: starting', 'far:app.service: healed', 'healed far:app.service']);
    expect(await heal(surroundings, ['far:secret'], { actor: ANN })).toBe(3);
    expect(await machine.property('app', 'ActiveState')).toBe('active');
    expect(await audit()).toEqual([
      { actor: ANN, action: 'unit_heal', target: 'far:app.service', outcome: 'done', reason: REASON },
      { actor: ANN, action: 'unit_heal', target: 'far:secret.service', outcome: 'denied', reason: null },
    ]);
  });

  test('refused early: what is well, what is not on the list there, what has no daemon', async () => {
    const { machine, preview } = await setUp();
    await machine.run('systemctl', ['start', 'app']);
    expect(await preview('unit_heal', 'far:app')).toMatchObject({
      refused: 'impossible',
      message: expect.stringContaining('it is active'),
    });
    expect(await preview('unit_heal', 'far:secret')).toMatchObject({
      refused: 'impossible',
      message: expect.stringContaining('RECLAIMD_UNITS'),
    });
    expect(await preview('unit_heal', 'far:x;reboot')).toMatchObject({
      refused: 'impossible',
      message: expect.stringContaining('RECLAIMD_UNITS'),
    });
    expect(await preview('unit_heal', 'nowhere:app')).toMatchObject({
      refused: 'impossible',
      message: expect.stringContaining('no node desk'),
    });
    await machine.run('systemctl', ['stop', 'reclaimd']);
    expect(await preview('unit_heal', 'far:app')).toMatchObject({ refused: 'impossible', message: expect.stringContaining('was stopped') });
  });

  test('healthy again, or started anew, between preview and execution: a drift, said and recorded; nothing is touched', async () => {
    const { machine, preview, execute, audit } = await setUp();
    await fail(machine, 'app');
    const token = tokenOf(await preview('unit_heal', 'far:app'));
    await machine.run('systemctl', ['start', 'app']);
    const restart = tokenOf(await preview('unit_restart', 'far:app'));
    await machine.run('systemctl', ['restart', 'app']);
    const life = await machine.property('app', 'InvocationID');
    expect(await execute(token)).toMatchObject({ refused: 'drifted', message: expect.stringContaining('was failed, is active') });
    expect(await execute(restart)).toMatchObject({ refused: 'drifted', message: expect.stringContaining('started anew') });
    expect(await machine.property('app', 'InvocationID')).toBe(life);
    expect((await audit()).map((event) => (event as { outcome: string }).outcome)).toEqual(['drifted', 'drifted']);
  });

  test('the daemon dies while it is at it: unknown is said, not success', async () => {
    const { machine, preview, execute, audit } = await setUp({ env: { RECLAIMD_HEAL_SETTLE: '60s' } });
    await fail(machine, 'app');
    const token = tokenOf(await preview('unit_heal', 'far:app'));
    const events: object[] = [];
    const executing = execute(token, (event) => events.push(event));
    await waitFor('it to begin', () => events.length === 1);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'reclaimd']);
    expect(await executing).toMatchObject({
      done: true,
      partial: true,
      targets: [{ target: 'far:app.service', outcome: 'unknown', error: expect.stringContaining('did not come back') }],
    });
    expect(await audit()).toMatchObject([{ actor: ANN, action: 'unit_heal', outcome: 'unknown' }]);
  });

  test('executor_stop_and_rescue: its unit is stopped for certain, then its attempts are given back', async () => {
    const fleet = await setUp({ worker: { mode: 'forever' } });
    const { machine, preview, execute, boss, audit } = fleet;
    await boss.send('mail', {});
    await machine.run('systemctl', ['start', 'worker@1']);
    const [life] = await waitForAdopted(fleet, 'far', 1);
    await waitFor('the job to be active', async () => (await boss.findJobs('mail'))[0]?.state === 'active');
    expect(await fleet.database.query('SELECT unit_allowed AS allowed FROM executor WHERE id = $1', [life?.id])).toEqual([
      { allowed: true },
    ]);
    const shown = await preview('executor_stop_and_rescue', life?.id ?? '');
    expect(shown).toMatchObject({
      plan: {
        unit: {
          node: 'far',
          unit: 'worker@1.service',
          command: 'unit_stop',
          warnings: expect.arrayContaining([expect.stringContaining('alive')]),
        },
      },
    });
    const result = await execute(tokenOf(shown));
    expect(result).toMatchObject({
      done: true,
      partial: false,
      targets: [{ target: life?.id, outcome: 'done', state: expect.stringContaining('holds no attempt') }],
    });
    expect(['failed', 'inactive']).toContain(await machine.property('worker@1', 'ActiveState'));
    await waitFor('the job to be back', async () => (await boss.findJobs('mail'))[0]?.state === 'retry');
    const ofAnn = (await audit()).filter((event) => (event as { actor: string }).actor === ANN);
    expect(ofAnn).toEqual([{ actor: ANN, action: 'executor_stop_and_rescue', target: life?.id, outcome: 'done', reason: REASON }]);
  });
});
