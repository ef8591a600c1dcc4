import { expect, test } from 'vitest';
import { inTurn } from '../../src/claims/run-turn.ts';
import { endTurn, renewTurn, takeTurn } from '../../src/claims/turn.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Clock } from '../../src/runtime/clock.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { spawnDaemon } from '../support/daemon-process.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor } from '../support/executor.ts';
import { passesOf } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';

const A = '00000000-0000-4000-8000-00000000000a';
const B = '00000000-0000-4000-8000-00000000000b';

test('one node a turn, whoever asks at once', async () => {
  const { database } = await createFleetDatabase();
  const answers = await Promise.all(Array.from({ length: 20 }, (_, index) => takeTurn(database, 'sweep', 60_000, index % 2 ? A : B)));
  expect(answers.filter((turn) => turn.mine)).toHaveLength(1);
  for (const turn of answers) if (!turn.mine) expect(turn.againInMs).toBeLessThanOrEqual(60_000);
});

test('who comes too early is told when the turn is due, and the grid loses none', async () => {
  const { database } = await createFleetDatabase();
  expect(await takeTurn(database, 'sweep', 10_000, A)).toEqual({ mine: true });
  await endTurn(database, 'sweep', A);
  const [first] = await database.query<{ due: string }>('SELECT due_at::text AS due FROM turn');
  const early = await takeTurn(database, 'sweep', 10_000, B);
  expect(!early.mine && early.againInMs).toBeGreaterThan(8_000);
  await database.query(`UPDATE turn SET due_at = now() - interval '1 second'`);
  expect(await takeTurn(database, 'sweep', 10_000, B)).toEqual({ mine: true });
  const [next] = await database.query<{ ahead: number }>(`SELECT extract(epoch FROM due_at - now())::float8 AS ahead FROM turn`);
  // Late by a second, so the next turn is due in nine: the grid did not move.
  expect(next?.ahead).toBeGreaterThan(8);
  expect(next?.ahead).toBeLessThan(9.1);
  expect(first?.due).toBeDefined();
});

test('an interval that was shortened counts at once, and one that was not changed moves nothing', async () => {
  const { database } = await createFleetDatabase();
  await takeTurn(database, 'reconcile', 3_600_000, A);
  await endTurn(database, 'reconcile', A);
  expect((await takeTurn(database, 'reconcile', 3_600_000, B)).mine).toBe(false);
  expect((await takeTurn(database, 'reconcile', 15_000, B)).mine).toBe(true);
  await endTurn(database, 'reconcile', B);
  const after = await takeTurn(database, 'reconcile', 15_000, A);
  expect(!after.mine && after.againInMs).toBeGreaterThan(10_000);
});

test('a turn whose holder died is taken over when its lease ends, and not before', async () => {
  const { database } = await createFleetDatabase();
  await takeTurn(database, 'sweep', 1_000, A);
  const soon = `lease_until BETWEEN now() + interval '5 s' AND now() + interval '10 s'`;
  expect(await database.query(`SELECT ${soon} AS soon FROM turn`)).toEqual([{ soon: true }]);
  await database.query(`UPDATE turn SET due_at = now() - interval '5 seconds'`);
  expect((await takeTurn(database, 'sweep', 1_000, B)).mine).toBe(false);
  await database.query(`UPDATE turn SET lease_until = now() - interval '1 millisecond'`);
  expect((await takeTurn(database, 'sweep', 1_000, B)).mine).toBe(true);
});

test('a dry-run daemon beside a real one takes no turn', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(url, database, 'worker');
  await boss.send('work', {});
  await executor.fetch('work');
  await executor.die();
  // So long that whoever took the first turn would keep everybody else from theirs.
  const env = { RECLAIMD_SWEEP_INTERVAL: '10m', RECLAIMD_RECONCILE_INTERVAL: '10m' };
  const dry = await spawnDaemon(url, { ...env, RECLAIMD_NODE: 'dry', RECLAIMD_DRY_RUN: 'true' });
  await waitFor('the dry run to have looked', () => dry.log.some(({ msg }) => msg === 'sweep would'));
  await startTestDaemon(url, { ...env, RECLAIMD_NODE: 'real' });
  await waitFor('the rescue', async () => (await database.query('SELECT FROM recovery')).length === 1);
  const acting = ['flows', 'ownership', 'reconcile', 'sweep'];
  const holders = await waitFor('every turn that acts to be taken', async () => {
    const rows = await database.query<{ name: string; node: string }>(
      'SELECT t.name, n.node FROM turn t JOIN node n ON n.daemon_id = t.holder WHERE t.name = ANY($1) ORDER BY t.name',
      [acting],
    );
    return rows.length === acting.length && rows;
  });
  expect(holders).toEqual(acting.map((name) => ({ name, node: 'real' })));
});

test('a dry run says what it would do when that changes, not at every sweep', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(url, database, 'worker');
  await boss.insert('work', [{}, {}]);
  await executor.fetch('work');
  await executor.die();
  const dry = await spawnDaemon(url, { RECLAIMD_DRY_RUN: 'true', RECLAIMD_SWEEP_INTERVAL: '500ms', RECLAIMD_LISTEN: '127.0.0.1:0' });
  const at = dry.log.find(({ msg }) => msg === 'reclaimd runs') as { url?: string } | undefined;
  const said = () => dry.log.flatMap((line) => (line.msg === 'sweep would' ? [(line as unknown as { failed: number }).failed] : []));
  await waitFor('the first word', () => said().length > 0);
  await passesOf('sweep', at?.url);
  expect(said()).toEqual([1]);
  const other = await createExecutor(url, database, 'other');
  await other.fetch('work');
  await other.die();
  await waitFor('the second word', () => said().length > 1);
  await passesOf('sweep', at?.url);
  expect(said()).toEqual([1, 2]);
});

test('a pass that takes longer than a lease keeps its turn, and gives it back at its end', async () => {
  const { database } = await createFleetDatabase();
  const renewals: (() => void)[] = [];
  const clock: Clock = {
    now: () => 0,
    sleep: (_, signal) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      renewals.push(resolve);
      signal?.addEventListener('abort', () => resolve());
      return promise;
    },
  };
  const work = Promise.withResolvers<void>();
  const pass = inTurn({ sql: database, clock, daemonId: A }, 'supervise', 1_000, () => work.promise)();
  await waitFor('the turn', () => renewals.length === 1);
  await database.query(`UPDATE turn SET due_at = now() - interval '40 seconds', lease_until = now() - interval '1 millisecond'`);
  renewals[0]?.();
  await waitFor('the renewal', () => renewals.length === 2);
  expect((await takeTurn(database, 'supervise', 1_000, B)).mine).toBe(false);
  work.resolve();
  expect(await pass).toBeUndefined();
  expect((await takeTurn(database, 'supervise', 1_000, B)).mine).toBe(true);
  // Who lost it meanwhile takes nothing back.
  await renewTurn(database, 'supervise', A);
  expect(await database.query('SELECT holder FROM turn')).toEqual([{ holder: B }]);
});

test('the same RECLAIMD_NODE twice is noticed and said', async () => {
  const { url } = await createFleetDatabase();
  const first = await startTestDaemon(url, { RECLAIMD_NODE: 'twin', RECLAIMD_LISTEN: '127.0.0.1:0' });
  const second = await startTestDaemon(url, { RECLAIMD_NODE: 'twin', RECLAIMD_LISTEN: '127.0.0.1:0' });
  await waitFor('one of them to notice', async () => {
    const pages = await Promise.all([first, second].map(async ({ url: at }) => (await fetch(`${at}/metrics`)).text()));
    return pages.some((page) => /^reclaimd_node_conflicts_total [1-9]/m.test(page));
  });
});
