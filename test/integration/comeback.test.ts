import { expect, test } from 'vitest';
import { createBeat } from '../../src/fleet/beat.ts';
import { claimFleet, readFleetState, saveBrake } from '../../src/fleet/queries.ts';
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
  const { beat } = createBeat({ identity: IDENTITY, log: silentLog, onNodeConflict: () => expect.unreachable('no rival') });
  const comeback = async () => (await database.query<{ at: string | null }>('SELECT comeback_at::text AS at FROM fleet'))[0]?.at;
  await beat(database);
  await database.query(`UPDATE node SET beat_at = now() - interval '4 seconds'`);
  await beat(database);
  expect(await comeback()).toBeNull();
  await database.query(`UPDATE node SET beat_at = now() - interval '5 seconds'`);
  await beat(database);
  expect(await comeback()).not.toBeNull();
});

test('a beat that failed is an outage, however short the gap', async () => {
  const { database } = await createFleetDatabase();
  await claimFleet(database, 'pgboss');
  const { beat, hasFailed } = createBeat({ identity: IDENTITY, log: silentLog, onNodeConflict: () => expect.unreachable('no rival') });
  const comeback = async () => (await database.query<{ at: string | null }>('SELECT comeback_at::text AS at FROM fleet'))[0]?.at;
  await beat(database);
  await expect(beat({ ...database, query: () => Promise.reject(new Error('away')) })).rejects.toThrow('away');
  expect(hasFailed()).toBe(true);
  await beat(database);
  expect(hasFailed()).toBe(false);
  const first = await comeback();
  expect(first).not.toBeNull();
  await beat(database);
  expect(await comeback()).toBe(first);
});

test('a beat after a gap is not fresh without its comeback, whatever breaks in between', async () => {
  const { database } = await createFleetDatabase();
  await claimFleet(database, 'pgboss');
  const { beat } = createBeat({ identity: IDENTITY, log: silentLog, onNodeConflict: () => expect.unreachable('no rival') });
  await beat(database);
  await database.query(`UPDATE node SET beat_at = now() - interval '1 minute'`);
  await database.query('ALTER TABLE fleet ADD CONSTRAINT none CHECK (comeback_at IS NULL)');
  await expect(beat(database)).rejects.toThrow('none');
  expect(await database.query(`SELECT FROM node WHERE beat_at > now() - interval '50 seconds'`)).toEqual([]);
  await database.query('ALTER TABLE fleet DROP CONSTRAINT none');
  await beat(database);
  expect((await database.query<{ reason: string }>('SELECT comeback_reason AS reason FROM fleet'))[0]?.reason).toMatch(
    /^node n was cut off for 6\d s$/,
  );
});

test('the brake leaves behind when it was let go', async () => {
  const { database } = await createFleetDatabase();
  await claimFleet(database, 'pgboss');
  const look = async () => {
    const { braked, releasedSeconds } = await readFleetState(database, null, null, 1);
    return [braked, releasedSeconds === null];
  };
  await saveBrake(database, false);
  expect(await look()).toEqual([false, true]);
  await saveBrake(database, true);
  expect(await look()).toEqual([true, true]);
  await saveBrake(database, false);
  expect(await look()).toEqual([false, false]);
});

test("a daemon's own earlier life is no rival, however it ended", async () => {
  const { database } = await createFleetDatabase();
  await claimFleet(database, 'pgboss');
  await createBeat({ identity: IDENTITY, log: silentLog, onNodeConflict: () => expect.unreachable() }).beat(database);
  const next = createBeat({
    identity: { ...IDENTITY, daemonId: '00000000-0000-4000-8000-00000000000b' },
    log: silentLog,
    onNodeConflict: () => expect.unreachable('its own earlier life'),
  });
  await next.beat(database);
  await next.beat(database);
});
