import { expect, test } from 'vitest';
import { takeTurn } from '../../src/claims/turn.ts';
import type { Context } from '../../src/context.ts';
import type { FleetState } from '../../src/fleet/queries.ts';
import { lintQueues } from '../../src/supervision/lint.ts';
import { superviseOnce } from '../../src/supervision/take-over.ts';
import { findStalls, projectSupervision } from '../../src/supervision/watch.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { openTestContext } from '../support/executor.ts';
import { chainOfThree } from '../support/flows.ts';
import { holdTurn, passesOf, releaseTurn, twoSweepsPass } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';

/** Over long before a test has begun. */
const GRACE = { RECLAIMD_OUTAGE_GRACE: '1s' };
const CALM: FleetState = {
  comebackSeconds: 1_000,
  comebackReason: null,
  braked: false,
  releasedSeconds: null,
  ownBeatFresh: true,
  daemonAgeSeconds: 1_000,
};

async function createSupervised() {
  const fleet = await createFleetDatabase({
    queues: [{ name: 'dead' }, { name: 'parent' }, { name: 'child' }, { name: 'grandchild' }, { name: 'beats', heartbeatSeconds: 10 }],
  });
  const context = await openTestContext(fleet.url);
  const { database } = fleet;
  const watch = {
    supervision: context.supervision,
    flows: context.flows,
    takenOver: false,
    outageGraceSeconds: 120,
    startupDelaySeconds: 120,
  };
  const stalls = async (takenOver = false, daemonSeconds = 0) =>
    (await findStalls(database, { ...watch, takenOver }, daemonSeconds)).findings.map(({ fingerprint, affected }) => [
      fingerprint.split(':').at(-1),
      affected,
    ]);
  const register = (supervise: boolean, config: object = {}, workers: object[] = [], ageSeconds = 3_600) =>
    database.query(
      `INSERT INTO instance (id, host, pid, version, node_version, heartbeat_seconds, supervise, schedule, migrate, persist_queue_stats,
         persist_warnings, config, workers, started_on)
       VALUES (gen_random_uuid(), 'h', 1, '12.38.0', '24', 30, $1, false, false, false, false, $2, $3, now() - make_interval(secs => $4))`,
      [supervise, JSON.stringify(config), JSON.stringify(workers), ageSeconds],
    );
  return { ...fleet, context, watch, stalls, register };
}

test('active jobs long past their expiry or their beat are seen, others not', async () => {
  const { boss, database, stalls, register } = await createSupervised();
  for (const queue of ['dead', 'parent', 'beats']) {
    await boss.send(queue, {});
    await boss.fetch(queue);
  }
  const age = (seconds: number) =>
    database.query(`UPDATE job SET started_on = now() - make_interval(secs => $1), heartbeat_on = now() - make_interval(secs => $1)`, [
      seconds,
    ]);
  await age(200);
  expect(await stalls()).toEqual([]);
  await age(400);
  expect(await stalls()).toEqual([['overdue', 1]]);
  await age(2_000);
  expect(await stalls()).toEqual([['overdue', 3]]);
  // Who supervises seldom is given the time for it.
  await register(true, { monitorIntervalSeconds: 1_000, superviseIntervalSeconds: 1_000 });
  expect(await stalls()).toEqual([]);
  await register(true, { monitorIntervalSeconds: 60, superviseIntervalSeconds: 60 });
  expect(await stalls()).toEqual([['overdue', 3]]);
});

test('nobody supervises: neither an instance nor anybody else claims a pass', async () => {
  const { boss, database, stalls, register } = await createSupervised();
  await database.query(`UPDATE queue SET created_on = now() - interval '1 hour'`);
  // Without workers there is nothing to supervise.
  expect(await stalls()).toEqual([]);
  await register(false);
  expect(await stalls()).toEqual([['nobody', 5]]);
  // One that supervises and has come up just now has not had the time for a pass.
  await register(true, {}, [], 10);
  expect(await stalls()).toEqual([]);
  await database.query('DELETE FROM instance WHERE supervise');
  // Somebody who calls supervise() of his own accord does as well.
  await boss.supervise();
  expect(await stalls()).toEqual([]);
});

test('passes that are claimed while their work is not done, unless a backoff is declared', async () => {
  const { database, stalls, register } = await createSupervised();
  await register(true);
  await database.query(
    `UPDATE queue SET created_on = now() - interval '1 hour', monitor_claim_on = now(), monitor_on = now() - interval '1 minute'`,
  );
  expect(await stalls()).toEqual([]);
  await database.query(`UPDATE queue SET monitor_on = now() - interval '20 minutes' WHERE name = 'dead'`);
  expect(await stalls()).toEqual([['idle', 1]]);
  await database.query(`UPDATE version SET monitor_backoff_on = now() - interval '1 minute'`);
  expect(await stalls()).toEqual([]);
  await database.query(`UPDATE version SET monitor_backoff_on = now() - interval '10 minutes'`);
  expect(await stalls()).toEqual([['idle', 1]]);
});

test('the first pass after a pause is given the time to do its work', async () => {
  const { database, watch, stalls, register } = await createSupervised();
  await register(true, {}, [], 60);
  await database.query(
    `UPDATE queue SET created_on = now() - interval '3 days', monitor_claim_on = now(), monitor_on = now() - interval '1 day'`,
  );
  expect(await stalls()).toEqual([]);
  // What was said before is not taken back by it either.
  expect((await findStalls(database, watch, 0)).unknown).toEqual(['supervision_stalled:pgboss:idle']);
  await database.query(`UPDATE instance SET started_on = now() - interval '10 minutes'`);
  expect(await stalls()).toEqual([['idle', 5]]);
});

test('taken over: a pass that is held, or was until now, is not missed', async () => {
  const { boss, database, watch, stalls } = await createSupervised();
  await database.query(
    `UPDATE queue SET created_on = now() - interval '3 days', monitor_on = now() - interval '6 minutes', monitor_claim_on = now() - interval '6 minutes'`,
  );
  await boss.send('beats', {});
  await boss.fetch('beats');
  await database.query(`UPDATE job SET heartbeat_on = now() - interval '10 minutes'`);
  expect(await stalls(true, 299)).toEqual([]);
  expect((await findStalls(database, { ...watch, takenOver: true }, 299)).unknown).toEqual([
    'supervision_stalled:pgboss:overdue',
    'supervision_stalled:pgboss:nobody',
  ]);
  expect(await stalls(true, 301)).toEqual([
    ['overdue', 1],
    ['nobody', 5],
  ]);
  const project = (fleet: object) =>
    projectSupervision(database, 'test', { ...CALM, ...fleet }, { ...watch, takenOver: true, startupDelaySeconds: 600 });
  expect((await project({ daemonAgeSeconds: 590 })).opened).toEqual([]);
  expect((await project({ daemonAgeSeconds: 2_000, braked: true })).opened).toEqual([]);
  expect((await project({ daemonAgeSeconds: 2_000 })).opened).toEqual([{ class: 'supervision_stalled', count: 2 }]);
  expect((await project({ daemonAgeSeconds: 2_000, braked: true })).resolved).toEqual([]);
});

test('taken over: an instance that supervises all the same is an incident, until it stops', async () => {
  const { database, stalls, register } = await createSupervised();
  await register(false);
  await database.query('UPDATE queue SET monitor_on = now(), monitor_claim_on = now()');
  expect(await stalls(true)).toEqual([]);
  await register(true);
  expect(await stalls(true)).toEqual([['twice', 1]]);
  expect(await stalls()).toEqual([]);
});

test('a node that has not taken over says nothing of workers that supervise beside those that have', async () => {
  const { database, watch, register } = await createSupervised();
  await database.query('UPDATE queue SET monitor_on = now(), monitor_claim_on = now()');
  await register(true);
  const look = (takenOver: boolean) => projectSupervision(database, 'test', CALM, { ...watch, takenOver });
  await takeTurn(database, 'supervise', 5_000, '00000000-0000-4000-8000-00000000000a');
  expect((await look(true)).opened).toEqual([{ class: 'supervision_stalled', count: 1 }]);
  expect((await look(false)).resolved).toEqual([]);
  // Nobody takes it over any more.
  await database.query(`UPDATE turn SET due_at = now() - interval '2 minutes', lease_until = NULL`);
  expect((await look(false)).resolved).toEqual([{ class: 'supervision_stalled', count: 1 }]);
});

test('flows that nobody resolves', async () => {
  const { boss, database, stalls } = await createSupervised();
  await chainOfThree(boss);
  const [job] = (await boss.fetch('parent')) ?? [];
  await boss.complete('parent', job?.id ?? '');
  expect(await stalls()).toEqual([]);
  await database.query(`UPDATE job SET completed_on = now() - interval '3 minutes' WHERE name = 'parent'`);
  expect(await stalls()).toEqual([['flows', 1]]);
});

test('after an outage nothing is known; what was said before stays', async () => {
  const { database, watch, register } = await createSupervised();
  await database.query(`UPDATE queue SET created_on = now() - interval '1 hour'`);
  await register(false);
  const look = (fleet: object) => projectSupervision(database, 'test', { ...CALM, ...fleet }, watch);
  expect((await look({ comebackSeconds: 10 })).opened).toEqual([]);
  expect((await look({})).opened).toEqual([{ class: 'supervision_stalled', count: 1 }]);
  await database.query('UPDATE instance SET stopped_on = now()');
  expect((await look({ ownBeatFresh: false })).resolved).toEqual([]);
  expect((await look({})).resolved).toEqual([{ class: 'supervision_stalled', count: 1 }]);
});

test('taken over: the daemon fails what is overdue, resolves flows, and keeps to it when pg-boss is asked in several statements', async () => {
  const { boss, url, database } = await createSupervised();
  await chainOfThree(boss);
  await boss.send('dead', {}, { retryLimit: 0 });
  const [overdue] = (await boss.fetch('dead')) ?? [];
  const [parent] = (await boss.fetch('parent')) ?? [];
  await boss.complete('parent', parent?.id ?? '');
  await database.query(`UPDATE job SET started_on = now() - interval '1 hour' WHERE id = $1`, [overdue?.id]);
  await startTestDaemon(url);
  const daemon = await startTestDaemon(url, {
    RECLAIMD_NODE: 'second',
    RECLAIMD_PGBOSS_SUPERVISE: 'true',
    RECLAIMD_LISTEN: '127.0.0.1:0',
    ...GRACE,
  });
  const stateOf = async (name: string) =>
    (await database.query<{ state: string; blocked: boolean }>('SELECT state::text, blocked FROM job WHERE name = $1', [name]))[0];
  await waitFor('the overdue job to fail', async () => (await stateOf('dead'))?.state === 'failed');
  await waitFor('the child to be free', async () => (await stateOf('child'))?.blocked === false);
  // pg-boss commits by itself; what it failed is told after that.
  const audit = () => database.query(`SELECT actor, target, detail FROM audit WHERE action = 'supervise'`);
  await waitFor('the audit of the pass', async () => (await audit()).length > 0);
  expect(await audit()).toEqual([{ actor: 'reclaimd@second', target: 'queues', detail: { attempts: [`dead/${overdue?.id}:0`] } }]);
  const metrics = await (await fetch(`${daemon.url}/metrics`)).text();
  expect(metrics).not.toMatch(/reclaimd_loop_runs_total\{loop="supervise",result="error"\}/);
});

test('a dry run supervises nothing, whatever has been taken over', async () => {
  const { boss, url, database } = await createSupervised();
  await boss.send('dead', {}, { retryLimit: 0 });
  await boss.fetch('dead');
  await database.query(`UPDATE job SET started_on = now() - interval '1 hour'`);
  const env = { RECLAIMD_PGBOSS_SUPERVISE: 'true', RECLAIMD_DRY_RUN: 'true', RECLAIMD_LISTEN: '127.0.0.1:0', ...GRACE };
  const daemon = await startTestDaemon(url, env);
  await daemon.firstPass;
  await passesOf('sweep', daemon.url);
  expect(await database.query('SELECT state::text FROM job')).toEqual([{ state: 'active' }]);
  expect(await database.query('SELECT FROM queue WHERE monitor_claim_on IS NOT NULL')).toEqual([]);
});

/** One pass that finds the fleet so, each time that it asks. */
function superviseAsked({ database, supervision, flows }: Context, readFleet: () => Promise<FleetState>) {
  return superviseOnce({ database, node: 'test', supervision, flows, outageGraceSeconds: 120, startupDelaySeconds: 120, readFleet });
}

test('a pass is broken off between two statements of pg-boss, and goes on when nothing holds it any more', async () => {
  const { boss, url, database } = await createSupervised();
  const context = await openTestContext(url, { RECLAIMD_PGBOSS_SUPERVISE: 'true', ...GRACE });
  await boss.send('dead', {}, { retryLimit: 0 });
  await boss.fetch('dead');
  await database.query(`UPDATE job SET started_on = now() - interval '1 hour'`);
  let asked = 0;
  const pass = (statements: number) => {
    asked = 0;
    return superviseAsked(context, async () => ({ ...CALM, ownBeatFresh: ++asked <= statements }));
  };
  const state = async () => (await database.query<{ state: string }>(`SELECT state::text FROM job WHERE name = 'dead'`))[0]?.state;
  // Before the pass, then before the list of queues, the claim and the counts: as after a sleep of the host.
  expect(await pass(4)).toBe('this daemon was cut off');
  expect(asked).toBe(5);
  expect(await state()).toBe('active');
  await database.query('UPDATE queue SET monitor_claim_on = NULL, monitor_on = NULL');
  expect(await pass(1_000)).toBeUndefined();
  expect(await state()).toBe('failed');
  // Other calls of pg-boss's are not asked about.
  asked = 0;
  await context.flows.resolve();
  expect(asked).toBe(0);
});

test('what is overdue by half an hour is told of, however often somebody comes back, and whatever holds the pass', async () => {
  const { boss, database, watch } = await createSupervised();
  await boss.send('beats', {});
  await boss.fetch('beats');
  const project = (takenOver: boolean, fleet: object) =>
    projectSupervision(database, 'test', { ...CALM, ...fleet }, { ...watch, takenOver });
  const overdueBy = (minutes: number) =>
    database.query(`UPDATE job SET heartbeat_on = now() - make_interval(mins => $1), started_on = now() - make_interval(mins => $1)`, [
      minutes,
    ]);
  await overdueBy(25);
  for (const takenOver of [true, false]) expect((await project(takenOver, { comebackSeconds: 5 })).opened).toEqual([]);
  await overdueBy(35);
  expect((await project(true, { comebackSeconds: 5 })).opened).toEqual([{ class: 'supervision_stalled', count: 1 }]);
  await database.query('DELETE FROM incident');
  expect((await project(true, { braked: true })).opened).toEqual([{ class: 'supervision_stalled', count: 1 }]);
  // What nobody could have done better is not told to be over, either.
  await overdueBy(1);
  expect((await project(true, { comebackSeconds: 5 })).resolved).toEqual([]);
});

test('the audit of a pass names what became overdue during it, and not what others failed meanwhile', async () => {
  const { boss, url, database } = await createSupervised();
  const context = await openTestContext(url, { RECLAIMD_PGBOSS_SUPERVISE: 'true', ...GRACE });
  const [late, byWorker] = [(await boss.send('dead', {}, { retryLimit: 0 })) ?? '', (await boss.send('dead', {}, { retryLimit: 0 })) ?? ''];
  await boss.fetch('dead', { batchSize: 2 });
  const expire = (id: string) => database.query(`UPDATE job SET started_on = now() - interval '1 hour' WHERE id = $1`, [id]);
  await expire(byWorker);
  let asked = 0;
  await superviseAsked(context, async () => {
    asked += 1;
    if (asked === 3) await Promise.all([expire(late), boss.fail('dead', byWorker, { message: 'the handler said no' })]);
    return CALM;
  });
  expect(await database.query(`SELECT detail FROM audit WHERE action = 'supervise'`)).toEqual([
    { detail: { attempts: [`dead/${late}:0`] } },
  ]);
});

test('a pass that is broken off anywhere keeps no queue from its retention at the next', async () => {
  const { boss, url, database } = await createSupervised();
  const context = await openTestContext(url, { RECLAIMD_PGBOSS_SUPERVISE: 'true', ...GRACE });
  const pass = async (statements: number) => {
    let asked = 0;
    await database.query('UPDATE queue SET monitor_claim_on = NULL, monitor_on = NULL');
    return superviseAsked(context, async () => ({ ...CALM, ownBeatFresh: ++asked <= statements }));
  };
  for (let statements = 1; statements < 200; statements++) {
    await boss.send('dead', {}, { retentionSeconds: 1 });
    await database.query(`UPDATE job SET keep_until = now() - interval '1 minute'`);
    await database.query('UPDATE queue SET maintain_on = NULL');
    const held = await pass(statements);
    await pass(1_000);
    expect(await database.query('SELECT id FROM job'), `held after ${statements} questions`).toEqual([]);
    if (held === undefined) return;
  }
  throw new Error('no pass came to its end');
});

test('while another daemon has the turn, nobody supervises', async () => {
  const { boss, url, database } = await createSupervised();
  await boss.send('dead', {}, { retryLimit: 0 });
  await boss.fetch('dead');
  await database.query(`UPDATE job SET started_on = now() - interval '1 hour'`);
  await holdTurn(database, 'supervise');
  for (const node of ['one', 'two']) await startTestDaemon(url, { RECLAIMD_NODE: node, RECLAIMD_PGBOSS_SUPERVISE: 'true', ...GRACE });
  await twoSweepsPass(database);
  expect(await database.query('SELECT FROM queue WHERE monitor_claim_on IS NOT NULL')).toEqual([]);
  await releaseTurn(database, 'supervise');
  await waitFor('the overdue job to fail', async () => (await database.query(`SELECT FROM job WHERE state = 'failed'`)).length === 1);
});

test('settings that make recovery slow or lose jobs are named, sound ones are not', async () => {
  const { boss, database, context, register } = await createSupervised();
  await database.query('DELETE FROM queue');
  await boss.createQueue('dead');
  await boss.createQueue('slow', { expireInSeconds: 3_600 });
  await boss.createQueue('slow-but-beats', { expireInSeconds: 3_600, heartbeatSeconds: 120 });
  await boss.createQueue('once', { retryLimit: 0 });
  await boss.createQueue('once-kept', { retryLimit: 0, deadLetter: 'dead' });
  await boss.createQueue('quick', { heartbeatSeconds: 10 });
  await boss.createQueue('loud', { notify: true });
  await boss.createQueue('heard', { notify: true });
  await register(false, { useListenNotify: true }, [{ queue: 'heard' }]);
  await register(false, {}, [{ queue: 'loud' }]);
  const found = (takenOver = false, outageGraceSeconds = 120) =>
    lintQueues(database, context.supervision, { takenOver, outageGraceSeconds });
  const lint = async (takenOver?: boolean, outageGraceSeconds?: number) =>
    (await found(takenOver, outageGraceSeconds)).map(({ rule, queue }) => [rule, queue]);
  expect(await lint()).toEqual([
    ['notify_without_listener', 'loud'],
    ['no_retry_no_dead_letter', 'once'],
    ['beat_shorter_than_monitor', 'quick'],
    ['long_expiry_no_beat', 'slow'],
  ]);
  await register(true, { monitorIntervalSeconds: 5 });
  expect(await lint()).not.toContainEqual(['beat_shorter_than_monitor', 'quick']);
  expect(await lint(true)).toContainEqual(['supervised_twice', null]);
  // The daemons look every 60 s, whatever the workers were told.
  const [beat] = (await found(true)).filter(({ queue }) => queue === 'quick');
  expect(beat?.message).toMatch(/every 60 s, and that cannot be changed$/);
  expect(beat?.mend).toMatch(/^raise heartbeatSeconds/);
  // The grace must leave every live job the time to beat again.
  expect(await lint(true)).not.toContainEqual(['grace_shorter_than_beat', 'quick']);
  expect(await lint(true, 10)).toContainEqual(['grace_shorter_than_beat', 'quick']);
  expect(await lint(false, 10)).not.toContainEqual(['grace_shorter_than_beat', 'quick']);
});
