import { expect, test } from 'vitest';
import { createBeat } from '../../src/fleet/beat.ts';
import { claimFleet } from '../../src/fleet/queries.ts';
import { createFleetDatabase, silentLog } from '../support/database.ts';

const IDENTITY = {
  node: 'n',
  daemonId: '00000000-0000-4000-8000-00000000000a',
  host: 'h',
  pid: 1,
  bootId: null,
  version: '0',
  stack: null,
  env: null,
};

test('a long gap between two beats of one daemon voids silence for the fleet; a short one does not', async () => {
  const { database } = await createFleetDatabase();
  await claimFleet(database, 'pgboss');
  const beat = createBeat({ identity: IDENTITY, log: silentLog, onNodeConflict: () => expect.unreachable('no rival') });
  const comeback = async () => (await database.query<{ at: string | null }>('SELECT comeback_at::text AS at FROM fleet'))[0]?.at;
  await beat(database);
  await database.query(`UPDATE node SET beat_at = now() - interval '7 seconds'`);
  await beat(database);
  expect(await comeback()).toBeNull();
  await database.query(`UPDATE node SET beat_at = now() - interval '8 seconds'`);
  await beat(database);
  expect(await comeback()).not.toBeNull();
});

test("a daemon's own earlier life is no rival, however it ended", async () => {
  const { database } = await createFleetDatabase();
  await claimFleet(database, 'pgboss');
  await createBeat({ identity: IDENTITY, log: silentLog, onNodeConflict: () => expect.unreachable() })(database);
  const next = createBeat({
    identity: { ...IDENTITY, daemonId: '00000000-0000-4000-8000-00000000000b' },
    log: silentLog,
    onNodeConflict: () => expect.unreachable('its own earlier life'),
  });
  await next(database);
  await next(database);
});
