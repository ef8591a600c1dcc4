import { describe, expect, test } from 'vitest';
import { createAllowlist, isUnitName, parseUnitPatterns } from './allowlist.ts';

test.each([
  ['mail.service', true],
  ['mail@1.service', true],
  ['app-a\\x2db@x:y.service', true],
  ['a@b@c.service', true],
  [`${'a'.repeat(247)}.service`, true],
  [`${'a'.repeat(248)}.service`, false],
  ['mail', false],
  ['mail.timer', false],
  ['mail@.service', false],
  ['-x.service', false],
  ['../etc/passwd.service', false],
  ['a b.service', false],
  ['a;reboot.service', false],
  ['mail*.service', false],
  ['mail.service\n', false],
  ['mäil.service', false],
  ['.service', false],
])('%j as a unit name: %s', (name, legal) => {
  expect(isUnitName(name)).toBe(legal);
});

describe('patterns', () => {
  test.each([
    ['mail', ['mail.service']],
    ['mail@, app-*.service !app-db', ['mail@*.service', 'app-*.service', '!app-db.service']],
    ['', undefined],
    ['!mail', undefined],
    ['mail;rm', undefined],
    ['a/b', undefined],
    ['mail.timer', undefined],
    ['w@[z-a]', undefined],
    ['app-[[:digit:]]*', undefined],
    ['app-[!a[:digit:]]', undefined],
    ['app-[:x]', ['app-[:x].service']],
  ])('%j is read as %j', (given, patterns) => {
    expect(parseUnitPatterns(given)).toEqual(patterns);
  });

  test.each([
    ['mail', ['mail.service'], ['mail2.service', 'xmail.service', 'mail@1.service']],
    ['mail@', ['mail@1.service', 'mail@a-b.service'], ['mail.service', 'mail@.service']],
    ['app-*,!app-db', ['app-web.service'], ['app-db.service', 'other.service']],
    ['!w@2,w@*', ['w@1.service', 'w@22.service'], ['w@2.service']],
    ['w@?', ['w@1.service'], ['w@12.service']],
    ['w@[12]', ['w@1.service', 'w@2.service'], ['w@3.service']],
    ['w@[!12]', ['w@3.service'], ['w@1.service']],
    ['a.b', ['a.b.service'], ['axb.service']],
    ['a\\x2db', ['a\\x2db.service'], ['a-b.service', 'ax2db.service']],
    ['*', ['a.service'], ['a.timer', 'a;b.service', 'a/b.service']],
  ])('%s', (given, inside, outside) => {
    const allowlist = createAllowlist(parseUnitPatterns(given) ?? []);
    expect(inside.filter((unit) => !allowlist.allows(unit))).toEqual([]);
    expect(outside.filter((unit) => allowlist.allows(unit))).toEqual([]);
  });

  test.each([
    ['app-*', ['app-db.service', 'mysql.service'], true, true],
    ['app-* !mysql', ['app-db.service', 'mysql.service'], false, false],
    ['mysql', ['app-db.service', 'mysql.service'], false, true],
    ['app-* !app-db', ['app-db.service'], false, false],
  ])('%j and a unit with the names %j: allowed %s, covered %s', (patterns, names, allowed, covered) => {
    const { allowsUnit, covers } = createAllowlist(parseUnitPatterns(patterns) ?? []);
    const unit = { unit: names[0] ?? '', names };
    expect([allowsUnit(unit), covers(unit)]).toEqual([allowed, covered]);
  });

  test('an empty allowlist allows nothing', () => {
    expect(createAllowlist([]).allows('mail.service')).toBe(false);
  });
});
