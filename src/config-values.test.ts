import { expect, test } from 'vitest';
import {
  closestName,
  databaseUrl,
  formatAddress,
  listenAddress,
  maskUrl,
  nodeName,
  parseDuration,
  pgbossName,
  policyRules,
} from './config-values.ts';

test.each([
  ['500ms', 500],
  ['30s', 30_000],
  ['2m', 120_000],
  ['1h', 3_600_000],
  ['7d', 604_800_000],
  ['0s', 0],
  ['', undefined],
  ['5', undefined],
  ['-5s', undefined],
  ['1.5m', undefined],
  ['5 s', undefined],
  ['5S', undefined],
  ['5s\n', undefined],
])('the duration %j is %s milliseconds', (given, ms) => {
  expect(parseDuration(given)).toBe(ms);
});

test.each([
  ['pgboss', true],
  ['MyBoss', true],
  ['"My-Boss 2"', true],
  ['"größe"', true],
  ['my-boss', false],
  ['2boss', false],
  ['', false],
  ['""', false],
  ['"', false],
  ['"a"b"', false],
  [`"o'clock"`, false],
  ['"a.b"', false],
  ['"a%Ib"', false],
  ['"a$b"', false],
  ['"a\\b"', false],
  ['"a\nb"', false],
  ['b'.repeat(50), true],
  ['b'.repeat(51), false],
  [`"${'ö'.repeat(25)}"`, true],
  [`"${'ö'.repeat(26)}"`, false],
])("pg-boss's schema name %j is taken: %s, as pg-boss has it", (given, taken) => {
  expect(pgbossName.parse(given)).toBe(taken ? given : undefined);
});

test.each([
  ['web-1', true],
  ['web-1.example.org', true],
  ['web 1', true],
  ['rack:1', false],
  [':', false],
  [' ', false],
  ['', false],
])("the node's name %j is taken: %s, for a unit's target is NODE:UNIT", (given, taken) => {
  expect(nodeName.parse(given)).toBe(taken ? given : undefined);
});

test.each([
  ['127.0.0.1:9464', { host: '127.0.0.1', port: 9464 }],
  ['localhost:0', { host: 'localhost', port: 0 }],
  ['[::1]:80', { host: '::1', port: 80 }],
  ['off', 'off'],
  ['::1:80', undefined],
  ['[localhost]:80', undefined],
  ['[:::]:80', undefined],
  [':80', undefined],
  ['80', undefined],
  ['localhost', undefined],
  ['localhost:65536', undefined],
  ['http://localhost:80', undefined],
  ['', undefined],
])('the address %j is %j', (given, address) => {
  expect(listenAddress.parse(given)).toEqual(address);
  if (typeof address === 'object') expect(formatAddress(address)).toBe(given);
});

test.each([
  ['postgres://u:p@h/db', true],
  ['postgresql:///db?host=/run/postgresql', true],
  ['embedded:./data', true],
  ['embedded:', false],
  ['http://h/db', false],
  ['u:p@h/db', false],
  ['', false],
])('the database URL %j is taken: %s', (given, taken) => {
  expect(databaseUrl.parse(given)).toBe(taken ? given : undefined);
});

test.each([
  'postgres://user:hunter2@db:5432/app',
  'postgres://user@db/app?password=hunter2',
  'postgres://user@db/app?password=hunter2&password=hunter2',
  'postgres://user@db/app?sslmode=require&sslpassword=hunter2',
  'postgres://user@db/app?options=-c%20app.token%3Dhunter2',
  'mysql://user:hunter2@db/app',
  'user:hunter2@db/app',
  'postgres:user:hunter2@db/app',
  'postgres://user:12/hunter2@db/app',
  'postgres://user:12?hunter2@db/app',
  'postgres://user:12#hunter2@db/app',
  'postgres://user:#hunter2@db/app',
  'hunter2',
])('no password is left in what is shown of %j', (given) => {
  expect(maskUrl(given)).not.toContain('hunter2');
});

test('of a URL everything but the password is shown', () => {
  expect(maskUrl('postgres://user:hunter2@db:5432/app?sslmode=require')).toBe('postgres://user:***@db:5432/app?sslmode=require');
  expect(maskUrl('embedded:./data')).toBe('embedded:./data');
});

test.each(['', ',', 'mail', 'mail=', '=hold', 'mail=retry', 'mail=hold:', 'mail=hold:max', 'mail=hold:max=-1', 'mail=hold:poison=fail'])(
  'the rules %j are refused',
  (given) => {
    expect(policyRules.parse(given)).toBeUndefined();
  },
);

test.each([
  ['RECLAIMD_POLICYS', 'RECLAIMD_POLICY'],
  ['RECLAIMD_STARTUPDELAY', 'RECLAIMD_STARTUP_DELAY'],
  ['RECLAIMD_X', undefined],
  ['RECLAIMD_FOO', undefined],
])('%s is taken to mean %s', (given, meant) => {
  expect(closestName(given, ['RECLAIMD_ENV', 'RECLAIMD_POLICY', 'RECLAIMD_STARTUP_DELAY'])).toBe(meant);
});
