import { expect, test } from 'vitest';
import { findTroubles, type OwnService } from './own-service.ts';

const GOOD: OwnService = {
  unit: 'reclaimd.service',
  type: 'notify',
  notifyAccess: 'all',
  watchdog: '30s',
  restart: 'always',
  user: 'reclaimd',
  environment: 'DATABASE_URL_FILE=/run/credentials/reclaimd.service/database-url NODE_ENV=production',
  exposure: 1.5,
};

test.each<[string, Partial<OwnService>, string[]]>([
  ['our own unit', {}, []],
  ['without systemd-analyze', { exposure: undefined }, []],
  ['a URL without a password', { environment: 'DATABASE_URL=postgres://reclaimd@db:5432/app' }, []],
  ['a plain service', { type: 'simple', notifyAccess: 'none' }, ['Type=simple']],
  ['a deaf one', { notifyAccess: 'main' }, ['NotifyAccess=main']],
  ['without a watchdog', { watchdog: '0' }, ['watchdog']],
  ['with one switched off', { watchdog: 'infinity' }, ['watchdog']],
  ['that stays down', { restart: 'no' }, ['Restart=no']],
  ['that stays down after a clean end', { restart: 'on-failure' }, ['Restart=on-failure']],
  ['of root', { user: '' }, ['root']],
  ['with its password on show', { environment: 'A=b DATABASE_URL=postgres://reclaimd:secret@db/app' }, ['password']],
  ['in no sandbox', { exposure: 9.2 }, ['9.2']],
  [
    'everything at once',
    { type: 'simple', watchdog: '0', restart: 'no', user: 'root', exposure: 9.6 },
    ['Type', 'watchdog', 'Restart', 'root', '9.6'],
  ],
])('%s', (_, service, said) => {
  const troubles = findTroubles({ ...GOOD, ...service }, 'system');
  expect(troubles.map(({ detail }) => detail)).toEqual(said.map((text) => expect.stringContaining(text)));
  expect(troubles.every(({ mend }) => mend !== '')).toBe(true);
});

test("a user's own manager gives neither another user nor a sandbox", () => {
  expect(findTroubles({ ...GOOD, user: '', exposure: 9.6 }, 'user')).toEqual([]);
});
