import { expect, test } from 'vitest';
import { readUnitOf, unitOfCgroup } from './cgroup.ts';

test.each([
  ['0::/system.slice/mail@1.service', 'system', 'mail@1.service'],
  ['0::/system.slice/system-mail.slice/mail@1.service/worker', 'system', 'mail@1.service'],
  ['0::/user.slice/user-1000.slice/session-3.scope', 'system', 'session-3.scope'],
  ['0::/user.slice/user-1000.slice/user@1000.service/app.slice/mail.service', 'system', 'user@1000.service'],
  ['0::/user.slice/user-1000.slice/user@1000.service/app.slice/mail.service', 'user', 'mail.service'],
  ['0::/user.slice/user-1001.slice/user@1001.service/app.slice/mail.service', 'user', undefined],
  ['0::/user.slice/user-1001.slice/user@1001.service/app.slice/user@1000.service/mail.service', 'user', undefined],
  ['0::/system.slice/mail.service', 'user', undefined],
  ['12:cpu:/\n1:name=systemd:/system.slice/mail.service\n0::/', 'system', 'mail.service'],
  ['0::/system.slice/_memory.service', 'system', 'memory.service'],
  ['0::/system.slice/__mail.service', 'system', '_mail.service'],
  ['0::/', 'system', undefined],
  ['0::/init.scope/', 'system', 'init.scope'],
  ['', 'system', undefined],
] as const)('%j, asked by user 1000 for the unit of the %s manager', (text, of, unit) => {
  expect(unitOfCgroup(text, of, 1000)).toBe(unit);
});

test('a process that is gone is in no unit', () => {
  expect(readUnitOf(2 ** 22 + 1, 'system')).toBeUndefined();
});
