import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { ACTIONS, type Action, type Resource } from './action.ts';
import { createAuthorizer } from './authorize.ts';

function writeActors(text: string, mode = 0o600): string {
  const directory = mkdtempSync(join(tmpdir(), 'actors-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'actors.json');
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

const FILE = {
  groups: { oncall: ['bob@*', 'carol@ops-1'], machines: ['root@ops-1'] },
  actors: {
    'alice@ops-1': [{ actions: ['*'] }],
    'group:oncall': [
      { actions: ['job_*', 'executor_rescue'], queues: ['mail-*', 'report'] },
      { actions: ['unit_heal'], units: ['web-1:worker@*.service', 'mailer.service'] },
      { actions: ['incident_*'] },
    ],
    'group:machines': [{ actions: ['job_retry'] }],
    'root@ops-2': [{ actions: ['*'] }],
    '*@web-*': [{ actions: ['job_retry'] }],
    'eve@ops-1': [],
  },
};

const queue = (name: string): Resource => ({ kind: 'queue', name });
const unit = (node: string, name: string): Resource => ({ kind: 'unit', node, name });
const executor = (...queues: string[]): Resource => ({ kind: 'executor', id: 'e1', queues });
const fleet: Resource = { kind: 'fleet' };

test.each<[string, Action, Resource, boolean]>([
  ['alice@ops-1', 'job_discard', queue('charge'), true],
  ['alice@ops-1', 'retention_prune', fleet, true],
  ['alice@ops-2', 'job_discard', queue('charge'), false],
  ['bob@anywhere', 'job_retry', queue('mail-out'), true],
  ['bob@anywhere', 'job_retry', queue('report'), true],
  ['bob@anywhere', 'job_retry', queue('charge'), false],
  ['bob@anywhere', 'unit_restart', unit('web-1', 'mailer.service'), false],
  ['carol@ops-1', 'unit_heal', unit('web-1', 'worker@3.service'), true],
  ['carol@ops-1', 'unit_heal', unit('web-2', 'worker@3.service'), false],
  ['carol@ops-1', 'unit_heal', unit('web-2', 'mailer.service'), true],
  ['carol@ops-1', 'unit_heal', queue('mailer.service'), false],
  ['carol@ops-1', 'executor_rescue', executor('mail-in', 'mail-out'), true],
  ['carol@ops-1', 'executor_rescue', executor('mail-in', 'charge'), false],
  ['carol@ops-1', 'executor_rescue', executor(), false],
  ['carol@ops-1', 'job_retry', fleet, false],
  ['carol@ops-1', 'incident_snooze', fleet, true],
  ['carol@ops-2', 'incident_snooze', fleet, false],
  ['dave@web-7', 'job_retry', queue('charge'), true],
  ['eve@ops-1', 'job_retry', queue('charge'), false],
  ['nobody-knows@me', 'job_retry', queue('charge'), false],
  ['root@web-7', 'job_retry', queue('charge'), false],
  ['root@ops-1', 'job_retry', queue('charge'), true],
  ['root@ops-2', 'job_retry', queue('charge'), true],
])('%s, %s, %j: %s', async (actor, action, resource, allowed) => {
  const authorize = createAuthorizer({ actorsFile: writeActors(JSON.stringify(FILE)), trustsDatabaseRole: true });
  expect((await authorize(actor, action, resource)).allowed).toBe(allowed);
});

test('a denial says who, what, where and by which file', async () => {
  const actorsFile = writeActors(JSON.stringify(FILE));
  const authorize = createAuthorizer({ actorsFile, trustsDatabaseRole: true });
  expect(await authorize('bob@ops-1', 'job_retry', queue('charge'))).toEqual({
    allowed: false,
    sentence: `bob@ops-1 may not job_retry in queue charge: ${actorsFile} gives this actor that right for other targets only`,
  });
  expect(await authorize('eve@ops-1', 'job_retry', queue('charge'))).toMatchObject({
    sentence: expect.stringMatching(/no right, only reading$/),
  });
});

test('a policy for a pattern of queues needs a right on all that it may match', async () => {
  const path = writeActors(JSON.stringify({ actors: { 'a@b': [{ actions: ['policy_set'], queues: ['mail-*'] }] } }));
  const authorize = createAuthorizer({ actorsFile: path, trustsDatabaseRole: true });
  const may = async (pattern: string) => (await authorize('a@b', 'policy_set', queue(pattern))).allowed;
  expect([await may('mail-out'), await may('mail-*-eu'), await may('mail*'), await may('*')]).toEqual([true, true, false, false]);
});

test('without a file, commands may what the database lets them, and a library nothing', async () => {
  const commands = createAuthorizer({ trustsDatabaseRole: true });
  const library = createAuthorizer({ trustsDatabaseRole: false });
  expect(await commands('alice@ops-1', 'job_retry', queue('mail'))).toEqual({ allowed: true });
  for (const action of ACTIONS) expect(await library('alice@ops-1', action, fleet)).toMatchObject({ allowed: false });
});

test.each([
  ...['', '  ', '@', ' @ops-1', 'two\nlines', 'x'.repeat(201), ' ann@ops-1', 'ann@ops-1\u00a0', 'a\u200bnn@ops-1'],
  ...['root@ops-1', 'Root@ops-1', 'root @ops-1', 'ｒｏｏｔ@ops-1', 'postgres@db', 'reclaimd@node-1', 'Reclaimd@node-1'],
])('authorized, but %j is nobody: refused', async (actor) => {
  expect(await createAuthorizer({ trustsDatabaseRole: true })(actor, 'job_retry', queue('mail'))).toMatchObject({ allowed: false });
});

test('a shared account may ask for what sets reclaimd up, and for nothing else', async () => {
  const authorize = createAuthorizer({ trustsDatabaseRole: true });
  for (const action of ACTIONS)
    expect([action, await authorize('root@ops-1', action, fleet)]).toEqual([
      action,
      action === 'ownership_install' ? { allowed: true } : { allowed: false, sentence: expect.stringContaining('--actor') },
    ]);
});

test.each([
  ['app', 'app.service', true],
  ['app', 'app2.service', false],
  ['worker@', 'worker@7.service', true],
  ['web-1:worker@', 'worker@7.service', true],
  ['web-2:worker@', 'worker@7.service', false],
  ['web-*:app*', 'app-2.service', true],
  ['*', 'app.service', true],
])('units %j are spelled as in RECLAIMD_UNITS: %s on web-1: %s', async (pattern, name, allowed) => {
  const path = writeActors(JSON.stringify({ actors: { 'a@b': [{ actions: ['unit_heal'], units: [pattern] }] } }));
  const authorize = createAuthorizer({ actorsFile: path, trustsDatabaseRole: true });
  expect((await authorize('a@b', 'unit_heal', unit('web-1', name))).allowed).toBe(allowed);
});

test("the host's function decides instead of any file, and its failure allows nothing", async () => {
  const actorsFile = writeActors(JSON.stringify(FILE));
  const asked: unknown[] = [];
  const answers = [
    true,
    false,
    { allowed: false, sentence: 'not on Fridays' },
    undefined as unknown as boolean,
    'yes' as unknown as boolean,
  ];
  const authorize = createAuthorizer({
    actorsFile,
    trustsDatabaseRole: true,
    authorize: (...question) => {
      asked.push(question);
      if (answers.length === 0) throw new Error('directory is down');
      return answers.shift() as boolean;
    },
  });
  const ask = () => authorize('user:17', 'job_retry', queue('mail'));
  expect(await ask()).toEqual({ allowed: true });
  expect(await ask()).toEqual({ allowed: false, sentence: 'user:17 may not job_retry here' });
  expect(await ask()).toEqual({ allowed: false, sentence: 'not on Fridays' });
  expect(await ask()).toMatchObject({ allowed: false });
  expect(await ask()).toMatchObject({ allowed: false });
  expect(await ask()).toMatchObject({ allowed: false, sentence: expect.stringContaining('directory is down') });
  expect(asked[0]).toEqual(['user:17', 'job_retry', queue('mail')]);
});

test.each([
  ['', 'line 1, column 1: the text ends too early'],
  ['{\n  "actors": {\n    "a": [}\n}', 'line 3, column 11: a value is expected'],
  ['{"actors": {}} x', 'line 1, column 16: nothing may follow the value'],
  ['{"actors": {"a": [], "a": []}}', 'line 1, column 22: the key "a" is given twice'],
  ['{"actors": {"a": [],}}', 'line 1, column 21: a key in double quotes is expected'],
  ['{"actors": {"a" []}}', 'line 1, column 17: `:` is expected'],
  ['{"actors": {"a": []', 'line 1, column 20: `,` or `}` is expected'],
  ['{"actors": {"a": [{} {}]}}', 'line 1, column 22: `,` or `]` is expected'],
  ['{"actors": {"a: []}}', 'line 1, column 13: the string does not end'],
  ['{"actors": trueish}', 'line 1, column 12: a value is expected'],
  ['[]', 'line 1, column 1: an object is expected, with actors, groups'],
  ['{}', 'line 1, column 1: `actors` is missing'],
  ['{"actor": {}}', 'line 1, column 11: "actor" is not known here; allowed: actors, groups'],
  ['{"actors": []}', 'line 1, column 12: an object is expected'],
  ['{"actors": {"a": {}}}', 'line 1, column 18: a list is expected'],
  ['{"actors": {"": []}}', 'line 1, column 17: an actor has a name'],
  ['{"actors": {"group:x": []}}', 'line 1, column 24: there is no group "x"'],
  ['{"actors": {"a": [{}]}}', 'line 1, column 19: `actions` is missing'],
  ['{"actors": {"a": [{"actions": ["job_rety"]}]}}', 'line 1, column 32: there is no action "job_rety"'],
  ['{"actors": {"a": [{"actions": "*"}]}}', 'line 1, column 31: a list is expected'],
  ['{"actors": {"a": [{"actions": ["*"], "queue": ["x"]}]}}', 'line 1, column 47: "queue" is not known here'],
  ['{"actors": {"a": [{"actions": ["*"], "queues": [1]}]}}', 'line 1, column 49: a text is expected'],
  [`${'['.repeat(100)}`, 'line 1, column 34: nested deeper than 32'],
])('%j is refused: %s', async (text, said) => {
  const actorsFile = writeActors(text);
  const authorize = createAuthorizer({ actorsFile, trustsDatabaseRole: true });
  await expect(authorize('a', 'job_retry', fleet)).rejects.toThrow(`actors file ${actorsFile}: ${said}`);
});

test('a file that cannot be trusted is refused by name', async () => {
  const ask = (actorsFile: string) => createAuthorizer({ actorsFile, trustsDatabaseRole: true })('alice@ops-1', 'job_retry', fleet);
  const open = writeActors(JSON.stringify(FILE), 0o666);
  await expect(ask(open)).rejects.toThrow(`actors file ${open}: anybody may write to it`);
  await expect(ask('/nowhere/actors.json')).rejects.toThrow('actors file /nowhere/actors.json: cannot be read (ENOENT)');
  const directory = join(open, '..', 'directory');
  mkdirSync(directory);
  await expect(ask(directory)).rejects.toThrow('is not a regular file');
  const large = writeActors(' '.repeat(1_048_577));
  await expect(ask(large)).rejects.toThrow('is larger than 1048576 bytes');
});
