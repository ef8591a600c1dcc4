import { expect, test } from 'vitest';
import type { ExecutorHealth } from './health.ts';
import { ownersOf } from './owners.ts';

const STARTED = '2026-01-01 12:00:00+00';
const [BEFORE, AFTER] = ['2026-01-01 11:00:00+00', '2026-01-01 13:00:00+00'];

const executor = (id: string, more: Partial<ExecutorHealth> = {}) =>
  ({
    id,
    kind: 'pgboss',
    applicationName: 'app',
    startedAt: BEFORE,
    endedAt: AFTER,
    verdict: 'dead',
    proof: 'process_gone',
    nameInUse: false,
    ...more,
  }) as ExecutorHealth;
const generated = (id: string, more: Partial<ExecutorHealth> = {}) => executor(id, { applicationName: 'pgboss:01234567', ...more });
const LIVING = { verdict: 'alive', endedAt: null, nameInUse: true } as const;

test.each<[string, ExecutorHealth[], string, string[]]>([
  ["a name of pg-boss's making", [generated('01234567-89')], 'pgboss:01234567', ['01234567-89']],
  ['one like it that is not its own', [generated('89abcdef-01', { nameInUse: true })], 'pgboss:01234567', []],
  ['a given name that one carried', [executor('a')], 'app', ['a']],
  ['another name', [executor('a')], 'other', []],
  ['no name', [executor('a', { applicationName: null })], '', []],
  ['a given name that some session still carries', [executor('a', { nameInUse: true })], 'app', []],
  [
    'sessions of a silent carrier may be its own, or not',
    [executor('a', { verdict: 'missing', endedAt: null, nameInUse: true })],
    'app',
    [],
  ],
  ['sessions of a living carrier', [executor('a', LIVING)], 'app', ['a']],
  ['two who are gone', [executor('a'), executor('b')], 'app', []],
  ['one who is gone and one who lives', [executor('a', { nameInUse: true }), executor('b', LIVING)], 'app', ['a', 'b']],
  ['one who had ended before', [executor('a', { endedAt: BEFORE }), executor('b')], 'app', ['b']],
  ['one who began later', [executor('a'), executor('b', { startedAt: AFTER, endedAt: null })], 'app', ['a']],
  [
    'a name of its own that seems to have begun later',
    [generated('01234567-89', { startedAt: AFTER })],
    'pgboss:01234567',
    ['01234567-89'],
  ],
  [
    'a name of its own whose proven end seems to have been before',
    [generated('01234567-89', { endedAt: BEFORE })],
    'pgboss:01234567',
    ['01234567-89'],
  ],
  ['the same, while some session carries it', [generated('01234567-89', { endedAt: BEFORE, nameInUse: true })], 'pgboss:01234567', []],
  [
    'the same, of one that stopped gracefully',
    [generated('01234567-89', { endedAt: BEFORE, verdict: 'stopped', proof: null })],
    'pgboss:01234567',
    [],
  ],
  ['one whose first beat came after its first fetch', [executor('a', { kind: 'own', startedAt: AFTER })], 'app', ['a']],
])('owners under %s', (_, executors, name, owners) => {
  expect(ownersOf(executors, name, STARTED).map(({ id }) => id)).toEqual(owners);
});
