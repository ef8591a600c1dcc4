import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { refreshHeartbeats } from '../../src/executors/health.ts';
import { adviseOn } from '../../src/incidents/advice.ts';
import type { IncidentClass } from '../../src/incidents/class.ts';
import { listIncidents } from '../../src/incidents/listing.ts';
import type { Stated } from '../../src/incidents/targets.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { projectIncidents } from '../../src/project-incidents.ts';
import { anotherNodeBeats } from '../support/beat.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext, sweepOnce } from '../support/executor.ts';
import { chainOfThree, createFlows } from '../support/flows.ts';
import { createScriptedUnits, FAILED } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';

type Fleet = Pick<Awaited<ReturnType<typeof createFleetDatabase>>, 'url' | 'database'>;

const openOf = async ({ database }: Fleet, incidentClass: IncidentClass) =>
  (await listIncidents(database, { class: incidentClass })).incidents;

/** What is advised, pasted into a shell: how each command ended, and what it said. */
async function paste({ url }: Fleet, stated: readonly Stated[], env: Record<string, string> = {}) {
  const pasted: { command: string; code: number; text: string }[] = [];
  for (const { command } of stated.flatMap((one) => adviseOn(one).repairs)) {
    const words = await promisify(execFile)('sh', ['-c', `reclaimd() { printf '%s\\n' "$@"; }\n${command}`]);
    const lines: string[] = [];
    let code = 0;
    const surroundings = {
      env: { DATABASE_URL: url, RECLAIMD_NODE: 'desk', SUDO_USER: 'ann', ...env },
      out: (text: string) => lines.push(text),
      signal: new AbortController().signal,
    };
    const program = createProgram(surroundings, 'test', (exit) => {
      code = exit;
    });
    await program.parseAsync(words.stdout.trim().split('\n'), { from: 'user' });
    pasted.push({ command, code, text: lines.join('\n') });
  }
  return pasted;
}

/** Each shows a plan and how to execute it. */
function expectPlans(pasted: Awaited<ReturnType<typeof paste>>, count: number): void {
  expect(pasted).toHaveLength(count);
  for (const one of pasted) expect(one).toMatchObject({ code: 0, text: expect.stringContaining('reclaimd execute ') });
}

async function createDeadWorker(env: Record<string, string>, { attempts = 1, queue = 'mail', swept = true } = {}) {
  const fleet = await createFleetDatabase({ queues: [{ name: queue }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(fleet.url, fleet.database, "worker's 1");
  await fleet.boss.insert(
    queue,
    Array.from({ length: attempts }, () => ({})),
  );
  await executor.fetch(queue, attempts);
  await executor.die();
  if (swept) await sweepOnce(fleet.url, env);
  await projectIncidents(await openTestContext(fleet.url, env));
  return fleet;
}

test.each(['mail', '-mail'])('held orphans of the queue %s', async (queue) => {
  const env = { RECLAIMD_POLICY: 'hold' };
  const fleet = await createDeadWorker(env, { attempts: 2, queue });
  expectPlans(await paste(fleet, await openOf(fleet, 'held_orphan'), env), 6);
});

test('an executor that has left attempts which are not back yet', async () => {
  const env = { RECLAIMD_POLICY: 'hold' };
  const fleet = await createDeadWorker(env, { attempts: 2, swept: false });
  expectPlans(await paste(fleet, await openOf(fleet, 'dead_executor'), env), 2);
});

test('a held attempt of which nobody knows whose it is', async () => {
  const fleet = await createFleetDatabase({ queues: [{ name: 'mail', heartbeatSeconds: 10 }] });
  await fleet.boss.send('mail', {});
  await fleet.boss.fetch('mail');
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await anotherNodeBeats(fleet.database);
  // Silence counts once the server has run for as long as the beat.
  await fleet.database.query(`UPDATE job SET heartbeat_seconds = 1, heartbeat_on = now() - interval '1 hour'`);
  await waitFor('the hold', async () => (await sweepOnce(fleet.url, { RECLAIMD_POLICIES: 'mail=hold:stale=30s' })).held === 1);
  expectPlans(await paste(fleet, await openOf(fleet, 'held_orphan')), 1);
});

test.each([
  ['some session carries', 'pgboss:first', ['life-1']],
  ['others have carried', 'billing', ['life-1', 'life-2']],
])('a dead executor whose application_name %s', async (whose, name, ids) => {
  const fleet = await createFleetDatabase({ queues: [{ name: 'mail' }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(fleet.url, fleet.database, 'first');
  await fleet.boss.send('mail', {});
  await executor.fetch('mail');
  await refreshHeartbeats(
    fleet.database,
    ids.map((id) => ({ executorId: id, applicationName: name, beatSeconds: 0.1 })),
  );
  await fleet.database.query(`DELETE FROM executor WHERE id = 'first'`);
  for (const table of ['attempt_a', 'attempt_b']) await fleet.database.query(`UPDATE ${table} SET application_name = $1`, [name]);
  await fleet.database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now(), last_alive_at = now()`);
  await projectIncidents(await openTestContext(fleet.url));
  const open = await openOf(fleet, 'dead_executor');
  expect(open).toMatchObject([{ summary: expect.stringContaining(`left alone, for ${whose} its application_name`) }]);
  expectPlans(await paste(fleet, open), 1);
});

test.each([
  ['hold', 2],
  ['discard', 1],
])('poison, by the policy %s', async (poison, count) => {
  const env = { RECLAIMD_MAX_RECOVERIES: '0', RECLAIMD_POISON: poison };
  const fleet = await createDeadWorker(env);
  expectPlans(await paste(fleet, await openOf(fleet, 'poison_job'), env), count);
});

test('executors that fell silent together, of which one holds an attempt', async () => {
  const fleet = await createFleetDatabase({ queues: [{ name: 'mail' }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const workers = await Promise.all(["worker's 1", 'second', 'third'].map((id) => createExecutor(fleet.url, fleet.database, id)));
  const id = await fleet.boss.send('mail', {});
  await workers[0]?.fetch('mail');
  for (const { boss } of workers) await boss.stop({ graceful: false });
  for (const { fallSilent } of workers) await fallSilent(600);
  const context = await openTestContext(fleet.url);
  const look = async () => {
    await projectIncidents(context);
    return openOf(fleet, 'mass_staleness');
  };
  expectPlans(await paste(fleet, await look()), 1);
  await fleet.boss.complete('mail', id ?? '');
  expect(await paste(fleet, await look())).toMatchObject([{ command: 'reclaimd executors', code: 0 }]);
});

test('a flow that waits in vain', async () => {
  const fleet = await createFlows();
  await chainOfThree(fleet.boss);
  await fleet.run('parent', 'fail');
  await fleet.settle();
  expectPlans(await paste(fleet, await openOf(fleet, 'workflow_stuck')), 3);
});

test('a flow of which nothing waits any more, though what was lost is not acknowledged', async () => {
  const fleet = await createFlows();
  await chainOfThree(fleet.boss);
  const parent = await fleet.run('parent', 'fail');
  await fleet.settle();
  await fleet.database.query('DELETE FROM job WHERE blocked');
  await fleet.settle();
  const open = await openOf(fleet, 'workflow_stuck');
  expect(open).toMatchObject([{ evidence: { parent: `parent/${parent}`, lost: { count: 2 } } }]);
  expect(open.map(adviseOn)).toMatchObject([{ underWay: expect.stringContaining('an acknowledgement closes this'), repairs: [] }]);
});

describe('on a node with units', () => {
  const UNIT = 'app@1.service';

  async function setUp() {
    const fleet = await createFleetDatabase({ queues: [{ name: 'mail' }] });
    await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
    const units = createScriptedUnits();
    units.set(UNIT, FAILED);
    await startTestDaemon(fleet.url, { RECLAIMD_NODE: 'far', RECLAIMD_UNITS: 'app@', RECLAIMD_HEAL: 'off' }, { units });
    await waitFor('the node', async () => (await fleet.database.query(`SELECT FROM node WHERE node = 'far'`)).length === 1);
    return { ...fleet, units };
  }

  test('units, whatever they are at', async () => {
    const { units, ...fleet } = await setUp();
    const at = { node: 'far', evidence: { unit: UNIT } };
    expectPlans(await paste(fleet, [{ class: 'unit_failed', ...at }]), 2);
    for (const state of [{}, { activeState: 'activating', subState: 'auto-restart' }, { activeState: 'active', subState: 'running' }]) {
      units.set(UNIT, state);
      expectPlans(await paste(fleet, [{ class: 'unit_flapping', ...at }]), 1);
    }
  });

  test('an executor that hangs in one of them, in another, or in none', async () => {
    const fleet = await setUp();
    const { boss, fallSilent } = await createExecutor(fleet.url, fleet.database, 'hung one');
    await boss.stop({ graceful: false });
    await fallSilent(600);
    const context = await openTestContext(fleet.url);
    const look = async (unit: string | null, isAllowed: boolean) => {
      await fleet.database.query(
        `UPDATE executor e SET unit = $1, unit_allowed = $2, host = 'far', pid = 7, witness_node = node, witness_daemon_id = n.daemon_id
         FROM node n WHERE node = 'far'`,
        [unit, isAllowed],
      );
      await projectIncidents(context);
      return openOf(fleet, 'hung_executor');
    };
    expectPlans(await paste(fleet, await look(UNIT, true)), 1);
    const repairsOf = async (...where: Parameters<typeof look>) => (await look(...where)).flatMap((one) => adviseOn(one).repairs);
    expect(await repairsOf('other.service', false)).toMatchObject([
      { command: 'systemctl restart other.service', effect: expect.stringContaining('on far, whose RECLAIMD_UNITS does not name it') },
    ]);
    expect(await repairsOf(null, false)).toMatchObject([{ command: 'kill -KILL 7', effect: expect.stringContaining('on far') }]);
  });
});
