import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Action } from '../../src/authorization/action.ts';
import * as policies from '../../src/cli/policies.ts';
import { runInstallOwnership, runRemoveOwnership } from '../../src/cli/schema.ts';
import { healUnit } from '../../src/healing/heal.ts';
import { restartUnit, stopUnit } from '../../src/healing/restart.ts';
import { acknowledge, snooze } from '../../src/incidents/attention.ts';
import { raise } from '../../src/incidents/incident.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair } from '../../src/repairs/preview.ts';
import type { Clock } from '../../src/runtime/clock.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { settleFlows } from '../../src/workflows/stuck-flows.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';
import { createScriptedUnits, FAILED } from '../support/scripted-units.ts';

const SOURCE = new URL('../../src/', import.meta.url);
const sources = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .map((file) => ({ file, text: readFileSync(new URL(file, SOURCE), 'utf8') }));

const ANN = 'ann@desk';
const REASON = 'because it must be';
const UNIT = 'app.service';

/** Time flies: what waits for ten seconds waits for a tenth of one. */
const impatient: Clock = { now: () => systemClock.now() * 100, sleep: (ms, signal) => systemClock.sleep(ms / 100, signal) };

async function createWorld() {
  const queues = [{ name: 'mail', retryLimit: 0 }, { name: 'parent', retryLimit: 0 }, { name: 'child' }];
  const fleet = await createFleetDatabase({ queues });
  const { url, database, boss } = fleet;
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const units = createScriptedUnits();
  units.set(UNIT, FAILED);
  const env = { RECLAIMD_UNITS: 'app', RECLAIMD_HEAL_SETTLE: '0s', RECLAIMD_WORKFLOW_POLICIES: 'parent=cancel-children' };
  const service = { manager: units.manager, journal: units.journal };
  const context = await openTestContext(url, env, { units: service, clock: impatient });
  const healing = context.healDependencies();
  if (!healing) throw new Error('no units');
  const states = () => database.query('SELECT name, state::text, blocked, retry_count FROM job ORDER BY name, id');
  const orphan = async () => {
    const executor = await createExecutor(url, database, 'worker');
    const jobId = (await boss.send('mail', {})) ?? '';
    await executor.fetch('mail');
    await executor.die();
    return `mail/${jobId}`;
  };
  return {
    ...fleet,
    units,
    healing,
    context,
    states,
    orphan,
    stuck: async () => {
      const ids = await boss.flow([
        { ref: 'parent', name: 'parent' },
        { ref: 'child', name: 'child', dependsOn: ['parent'] },
      ]);
      await boss.fetch('parent');
      await boss.fail('parent', ids['parent'] ?? '');
      return { parent: `parent/${ids['parent']}`, child: `child/${ids['child']}` };
    },
    surroundings: { env: { DATABASE_URL: url, RECLAIMD_NODE: 'here' }, out: () => undefined, signal: new AbortController().signal },
    /** Through preview and execution, as a person does it. */
    repair: async (action: Action, target: string, look: () => Promise<unknown> = states): Promise<Door> => {
      const dependencies = context.repairDependencies();
      const shown = await previewRepair(dependencies, { action, targets: [target], actor: ANN });
      if (!shown.done || shown.token === null) throw new Error(JSON.stringify(shown));
      const token = shown.token;
      return { act: () => executeRepair(dependencies, { token, actor: ANN, reason: REASON }), look, action };
    },
    incident: async () => {
      const finding = { class: 'hung_executor', fingerprint: 'h', summary: 's', evidence: {} } as const;
      await raise(database, 'here', [finding]);
      const [row] = await database.query<{ id: string }>('SELECT id::text FROM incident');
      return {
        request: { incidentId: row?.id ?? '', actor: ANN, reason: REASON },
        dependencies: { database, authorize: context.authorize, node: 'here' },
        look: () => database.query('SELECT acknowledged_by, snoozed_by FROM incident'),
      };
    },
    /** Its work cannot be in a transaction: what must not be told without a record is its end. */
    unitAction: (act: () => Promise<unknown>, action: string): Door => ({
      act,
      look: () => database.query('SELECT action FROM unit_action WHERE outcome IS NOT NULL'),
      action,
    }),
  };
}

interface Door {
  act(): Promise<unknown>;
  /** What it changes. */
  look(): Promise<unknown>;
  /** As the audit names it. */
  action: string;
}

type World = Awaited<ReturnType<typeof createWorld>>;
type Walked = Exclude<Action, 'retention_prune' | 'retention_restore' | 'executor_stop_and_rescue' | 'reconcile'> | 'unit_stop' | 'flows';

const asked = { actor: ANN, reason: REASON };
const healer = { ...asked, automatic: false };

/**
 * Everything by which a job, a unit, a policy, an incident or the ownership is changed. Not here: retention, which changes what is
 * reclaimd's own; executor_stop_and_rescue and repairs of units elsewhere, whose record is the command's (node-commands.test.ts); reconcile,
 * which is the flows and messages that change nothing.
 */
const DOORS: Record<Walked, (world: World) => Promise<Door> | Door> = {
  job_rescue: async (world) => world.repair('job_rescue', await world.orphan()),
  job_discard: async (world) => world.repair('job_discard', await world.orphan()),
  job_cancel: async (world) => world.repair('job_cancel', await world.orphan()),
  job_retry: async (world) => {
    const id = (await world.boss.send('mail', {})) ?? '';
    await world.boss.cancel('mail', id);
    return world.repair('job_retry', `mail/${id}`);
  },
  executor_rescue: async (world) => {
    await world.orphan();
    return world.repair('executor_rescue', 'worker');
  },
  sweep: async ({ orphan, context, states }) => {
    await orphan();
    return { act: () => sweep(context.sweepDependencies(null, false)), look: states, action: 'sweep' };
  },
  workflow_retry_parent: async (world) => world.repair('workflow_retry_parent', (await world.stuck()).parent),
  workflow_cancel_descendants: async (world) => world.repair('workflow_cancel_descendants', (await world.stuck()).parent),
  workflow_unblock: async (world) => world.repair('workflow_unblock', (await world.stuck()).child),
  flows: async ({ stuck, context, states }) => {
    await stuck();
    const act = async () => {
      const { failures } = await settleFlows(context.flowDependencies(false));
      if (failures.length > 0) throw failures[0];
    };
    return { act, look: states, action: 'workflow_cancel_descendants' };
  },
  unit_heal: ({ healing, unitAction }) => unitAction(() => healUnit(healing, UNIT, healer), 'unit_heal'),
  unit_restart: ({ healing, unitAction }) => unitAction(() => restartUnit(healing, UNIT, asked), 'unit_restart'),
  unit_stop: ({ healing, unitAction }) => unitAction(() => stopUnit(healing, UNIT, asked), 'unit_stop'),
  incident_acknowledge: async ({ incident }) => {
    const { dependencies, request, look } = await incident();
    return { act: () => acknowledge(dependencies, request), look, action: 'incident_acknowledge' };
  },
  incident_snooze: async ({ incident }) => {
    const { dependencies, request, look } = await incident();
    return { act: () => snooze(dependencies, { ...request, seconds: 60 }), look, action: 'incident_snooze' };
  },
  policy_set: ({ surroundings, database }) => ({
    act: () => policies.set(surroundings, 'mail', 'hold', { actor: ANN }),
    look: () => database.query('SELECT queue, policy FROM policy'),
    action: 'policy_set',
  }),
  policy_remove: async ({ surroundings, database }) => {
    await database.query(`INSERT INTO policy (queue, policy, updated_by) VALUES ('mail', 'hold', 'bob')`);
    return {
      act: () => policies.remove(surroundings, 'mail', { actor: ANN }),
      look: () => database.query('SELECT queue, policy FROM policy'),
      action: 'policy_remove',
    };
  },
  ownership_install: ({ surroundings, database }) => ({
    act: async () => {
      // The trigger was there: one that is disabled counts as missing.
      await runInstallOwnership(surroundings, { actor: ANN });
    },
    look: () => database.query(`SELECT tgname, tgenabled FROM pg_trigger WHERE tgname = 'reclaimd_record_attempts'`),
    action: 'ownership_install',
  }),
  ownership_remove: ({ surroundings, database }) => ({
    act: () => runRemoveOwnership(surroundings, { actor: ANN }),
    look: () => database.query(`SELECT tgname FROM pg_trigger WHERE tgname = 'reclaimd_record_attempts'`),
    action: 'ownership_remove',
  }),
};

describe('one record, or nothing at all', () => {
  test.each(Object.entries(DOORS))('%s', async (name, prepare) => {
    const world = await createWorld();
    const { database, units } = world;
    if (name === 'ownership_install') await database.query('ALTER TABLE pgboss.job_common DISABLE TRIGGER reclaimd_record_attempts');
    const { act, look, action } = await prepare(world);
    const before = await look();
    const recoveries = await database.query('SELECT FROM recovery');
    await database.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the audit is closed'; END $$`);
    await database.query('CREATE TRIGGER refuse BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION refuse()');
    await expect(act()).rejects.toThrow('the audit is closed');
    expect(await look()).toEqual(before);
    expect(await database.query('SELECT FROM recovery')).toEqual(recoveries);
    expect(await database.query('SELECT FROM audit')).toEqual([]);

    await database.query('DROP TRIGGER refuse ON audit');
    // What a healer that could not tell has left is over.
    await database.query('DELETE FROM unit_action');
    units.set(UNIT, FAILED);
    await act();
    expect(await look()).not.toEqual(before);
    expect(await database.query('SELECT action FROM audit')).toEqual([{ action }]);
  });
});

/** Every door, and those of the above that go through it. A new one fails here until it is walked. */
const THROUGH: Record<string, readonly Walked[]> = {
  createRescueGateway: ['sweep'],
  createRepairDoor: ['job_rescue', 'job_discard', 'job_cancel', 'job_retry', 'executor_rescue'],
  createUnitDoor: ['unit_heal', 'unit_restart', 'unit_stop'],
  createWorkflowDoor: ['workflow_retry_parent', 'workflow_cancel_descendants', 'workflow_unblock', 'flows'],
};
/** Changes nothing. */
const LOCKED = ['createDryRunGateway'];

test('every door is walked', () => {
  const doors = sources
    .filter(({ file }) => file.startsWith('actions/'))
    .flatMap(({ text }) => [...text.matchAll(/export (?:async )?function (create\w*(?:Door|Gateway))\b/g)].map(([, name]) => name));
  expect(doors.toSorted()).toEqual([...Object.keys(THROUGH), ...LOCKED].toSorted());
});

test.each([
  ['jobs', /\bjobs\.(fail|discard|requeue|retry|resume|cancel)\(/, ['actions/rescue.ts', 'actions/workflow-door.ts']],
  ['jobs, by name', /\bjobs\[kind\]\(/, ['actions/job-repair.ts']],
  [
    'jobs, by statements',
    /\b(UPDATE|DELETE FROM|INSERT INTO|MERGE INTO|TRUNCATE)\s+\S*\bjob(_common)?\b/i,
    ['pgboss/flow-queries.ts', 'pgboss/queries.ts'],
  ],
  ['flows', /\bflows\.release\(/, ['actions/workflow-door.ts']],
  // Within the act that the door runs under its lease.
  ['units', /\bunits\.(start|restart|stop|resetFailed)\(/, ['healing/restart.ts', 'healing/start-anew.ts']],
  ['attempts without their audit', /\brescueAttempts\(/, ['actions/job-repair.ts', 'actions/rescue.ts']],
])('nothing changes %s but through a door', (_, pattern, allowed) => {
  const found = sources.filter(({ text }) => pattern.test(text)).map(({ file }) => file);
  expect(found.toSorted()).toEqual(allowed);
});
