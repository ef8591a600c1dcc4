import { expect, test } from 'vitest';
import { inTurn } from '../../src/claims/run-turn.ts';
import { endTurn, renewTurn, takeTurn } from '../../src/claims/turn.ts';
import type { Clock } from '../../src/runtime/clock.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
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

test('a turn whose holder died is taken over when its lease ends, and not before', async () => {
  const { database } = await createFleetDatabase();
  await takeTurn(database, 'sweep', 1_000, A);
  await database.query(`UPDATE turn SET due_at = now() - interval '5 seconds'`);
  expect((await takeTurn(database, 'sweep', 1_000, B)).mine).toBe(false);
  await database.query(`UPDATE turn SET lease_until = now() - interval '1 millisecond'`);
  expect((await takeTurn(database, 'sweep', 1_000, B)).mine).toBe(true);
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
