import { expect, test } from 'vitest';
import { createBeat } from '../../src/fleet/beat.ts';
import { claimFleet } from '../../src/fleet/queries.ts';
import { type Break, createBreakingProxy } from '../support/breaking-proxy.ts';
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

test.each<Break>(['before', 'after'])(
  'the connection breaks %s each statement of the first beat after an outage: its freshness is never seen without the comeback',
  async (when) => {
    const { url, database, connect } = await createFleetDatabase();
    await claimFleet(database, 'pgboss');
    const proxy = await createBreakingProxy(url);
    const behindProxy = connect({ url: proxy.url });
    const { beat } = createBeat({ identity: IDENTITY, log: silentLog, onNodeConflict: () => expect.unreachable('no rival') });
    await beat(behindProxy);
    let statement = 0;
    do {
      statement += 1;
      proxy.mend();
      await behindProxy.query('SELECT 1').catch(() => behindProxy.query('SELECT 1'));
      await database.query(`UPDATE node SET beat_at = now() - interval '1 hour'`);
      await database.query('UPDATE fleet SET comeback_at = NULL');
      proxy.breakAt(statement, when);
      await beat(behindProxy).catch(() => undefined);
      const [seen] = await database.query<{ fresh: boolean; comeback: boolean }>(
        `SELECT beat_at > now() - interval '1 minute' AS fresh, comeback_at IS NOT NULL AS comeback FROM node, fleet`,
      );
      expect(seen?.comeback, `statement ${statement}`).toBe(seen?.fresh);
    } while (proxy.isBroken());
    expect(statement, 'it was broken at least once').toBeGreaterThan(1);
  },
);
