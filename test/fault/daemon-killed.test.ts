import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Database } from '../../src/postgres/database.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { createBreakingProxy } from '../support/breaking-proxy.ts';
import { spawnDaemon } from '../support/daemon-process.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };
/** One queue for each way a sweep can go; `full` has no room for a restart, `poison` is past its limit. */
const QUEUES = ['fail', 'restart', 'discard', 'hold', 'poison', 'full'] as const;
const RULES = 'fail=fail,restart=restart,discard=discard,hold=hold,poison=fail:max=1,full=restart';
/** By queue: the job's state, the outcome recorded of it, how often, and the incident open about it. */
const ENDS: Record<string, [state: string, outcome: string, incident: string | null]> = {
  fail: ['retry', 'failed', null],
  restart: ['retry', 'restarted', null],
  discard: ['failed', 'discarded', null],
  hold: ['active', 'held', 'held_orphan'],
  poison: ['failed', 'discarded', 'poison_job'],
  full: ['failed', 'failed', null],
};

async function createFleet() {
  const fleet = await createFleetDatabase({
    queues: [
      { name: 'letters' },
      ...QUEUES.map((name) => ({ name, retryLimit: 3, ...(name === 'full' ? { policy: 'stately' as const } : {}), deadLetter: 'letters' })),
    ],
  });
  await installOwnership(fleet.database, TARGET);
  const executor = await createExecutor(fleet.url, fleet.database, 'worker-1');
  return { ...fleet, executor };
}

type Fleet = Awaited<ReturnType<typeof createFleet>>;

/** Two jobs of the dead worker in each queue (one in `full`), and nothing else. */
async function beginAgain({ boss, database, executor }: Fleet): Promise<void> {
  for (const queue of [...QUEUES, 'letters']) await boss.deleteAllJobs(queue);
  await database.query('TRUNCATE recovery, incident, incident_occurrence, incident_opening, attempt_a, attempt_b');
  await database.query('UPDATE executor SET proof = NULL, dead_at = NULL');
  for (const queue of QUEUES) {
    if (queue === 'full') {
      await boss.send(queue, {}, { retryLimit: 3 });
      await boss.fetch(queue);
      await database.query(`UPDATE job SET state = 'retry', start_after = now() + interval '1 hour' WHERE name = 'full'`);
    }
    for (const data of queue === 'full' ? [1] : [1, 2]) await boss.send(queue, { data });
    await executor.fetch(queue, 2);
  }
  await database.query(
    `INSERT INTO recovery (queue, job_id, retry_count, verdict, policy, policy_source, outcome, reason, node)
     SELECT name, id, -1, 'dead', 'fail', 'configured', 'failed', 'an earlier crash', 'earlier' FROM job WHERE name = 'poison'`,
  );
  await executor.die();
}

interface Account {
  queue: string;
  state: string;
  outcomes: string[];
  incident: string | null;
}

/** The dead worker's jobs, what the records say of each, and the open incident about it. */
function readAccounts(database: Database): Promise<Account[]> {
  return database.query<Account>(
    `SELECT j.name AS queue, j.state::text,
       array(SELECT r.outcome FROM recovery r WHERE r.queue = j.name AND r.job_id = j.id AND r.node <> 'earlier') AS outcomes,
       (SELECT string_agg(i.class || i.occurrences, ' ') FROM incident i WHERE i.fingerprint LIKE '%:' || j.name || '/' || j.id || '%') AS incident
     FROM job j WHERE j.name <> 'letters' AND EXISTS (SELECT FROM attempt a WHERE a.job_id = j.id AND a.application_name = 'pgboss:worker-1')
     ORDER BY j.name`,
  );
}

function expectEveryJobEndedOnce(accounts: Account[], label: string): void {
  expect(accounts, label).toEqual(
    [...QUEUES].sort().flatMap((queue) => {
      const [state, outcome, incident] = ENDS[queue] ?? [];
      const account = { queue, state, outcomes: [outcome], incident: incident && `${incident}1` };
      return queue === 'full' ? [account] : [account, account];
    }),
  );
}

for (const when of ['before', 'after'] as const) {
  test(`a daemon killed in the middle of a sweep, ${when} every statement: nothing lost, nothing double, nothing stuck`, {
    timeout: 180_000,
  }, async () => {
    const fleet = await createFleet();
    const { url, database } = fleet;
    const proxy = await createBreakingProxy(url);
    const env = { RECLAIMD_POLICIES: RULES, RECLAIMD_BATCH: '2' };
    const second = await openTestContext(url, { ...env, RECLAIMD_NODE: 'second' });
    const by = { first: 0, second: 0 };
    let statement = 1;
    for (; ; statement++) {
      await beginAgain(fleet);
      proxy.mend();
      const first = await openTestContext(proxy.url, { ...env, RECLAIMD_NODE: 'first' });
      proxy.breakAt(statement, when);
      const failure = await sweep(first.sweepDependencies(null, false)).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (!proxy.isBroken()) {
        expect(failure).toBeUndefined();
        break;
      }
      const label = `broken ${when} statement ${statement}`;
      // What the dead one's backend still holds is skipped, not waited for: until Postgres has noticed, sweep again.
      await waitFor(`the second sweeper to finish, ${label}`, async () => {
        await sweep(second.sweepDependencies(null, false));
        return (await readAccounts(database)).every(({ outcomes }) => outcomes.length > 0);
      });
      expectEveryJobEndedOnce(await readAccounts(database), label);
      const letters = await database.query(`SELECT FROM job WHERE name = 'letters'`);
      expect(letters, label).toHaveLength(5);
      for (const { node, count } of await database.query<{ node: 'first' | 'second'; count: number }>(
        `SELECT node, count(*)::int AS count FROM recovery WHERE node <> 'earlier' GROUP BY node`,
      ))
        by[node] += count;
    }
    expectEveryJobEndedOnce(await readAccounts(database), 'a sweep that gets through');
    expect(statement, 'statements of a sweep').toBeGreaterThan(40);
    expect(Math.min(by.first, by.second), 'both have had their part').toBeGreaterThan(100);
  });
}

test('a daemon killed while its rescue is under way leaves nothing, and another takes over', async () => {
  const { url, boss, database, executor } = await createFleet();
  await boss.send('fail', {});
  await executor.fetch('fail');
  await executor.die();
  const daemon = await database.transaction(async (tx) => {
    await tx.query('LOCK TABLE recovery IN EXCLUSIVE MODE');
    const first = await spawnDaemon(url, { RECLAIMD_NODE: 'first' });
    await waitFor('the rescue to be under way', async () => {
      const waiting = `SELECT FROM pg_stat_activity WHERE application_name = 'reclaimd:daemon:first' AND wait_event_type = 'Lock'`;
      return (await database.query(waiting)).length > 0;
    });
    first.kill('SIGKILL');
    await first.exited;
    return first;
  });
  expect(daemon.log.filter(({ level }) => level === 'error')).toEqual([]);
  await spawnDaemon(url, { RECLAIMD_NODE: 'second' });
  // The turn is the dead daemon's until its lease ends.
  await database.query(`UPDATE turn SET lease_until = now()`);
  await waitFor('the second daemon to take over', async () => (await database.query('SELECT FROM recovery')).length > 0);
  expect(await database.query('SELECT node, outcome FROM recovery')).toEqual([{ node: 'second', outcome: 'failed' }]);
  expect(await database.query(`SELECT state::text FROM job WHERE name = 'fail'`)).toEqual([{ state: 'retry' }]);
});
