import { expect, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { type Finding, project, raise } from '../../src/incidents/incident.ts';
import type { Incident } from '../../src/incidents/listing.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, sweepOnce } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

/** Commands run in this process, against a database of the test's own. */
async function createDesk() {
  const fleet = await createFleetDatabase({ queues: [{ name: 'pay', retryLimit: 5 }] });
  await installOwnership(fleet.database, TARGET);
  const start = (signal: AbortSignal, ...args: string[]) => {
    const lines: string[] = [];
    const env = { DATABASE_URL: fleet.url, RECLAIMD_NODE: 'desk' };
    let code = 0;
    const program = createProgram({ env, out: (text) => lines.push(text), signal }, 'test', (exit) => {
      code = exit;
    });
    const ended = program.parseAsync(args, { from: 'user' }).then(() => ({ code, text: lines.join('\n') }));
    return { lines, ended };
  };
  const run = (...args: string[]) => start(new AbortController().signal, ...args).ended;
  const json = async (...args: string[]) => JSON.parse((await run(...args, '--json')).text) as Record<string, unknown>;
  return { ...fleet, start, run, json };
}

const HUNG: Finding = {
  class: 'hung_executor',
  fingerprint: 'hung_executor:e1',
  summary: 'e1 on web-1: silent past 90 s, but its process is there',
  evidence: { executor: 'e1', host: 'web-1', pid: 7, queues: ['pay'] },
  node: 'web-1',
  env: 'prod',
};

test('the list says what is wrong now, in aligned lines, and nothing of colour in a pipe', async () => {
  const { database, run } = await createDesk();
  expect((await run('incidents')).text).toBe('no incidents');
  await project(database, 'n', 'hung_executor', [HUNG]);
  await raise(database, 'n', {
    class: 'mass_staleness',
    fingerprint: 'mass_staleness',
    summary: '40 executors fell silent\u001b[2J',
    evidence: { executors: ['a'] },
    affected: 40,
  });
  const { text, code } = await run('incidents');
  const [head = '', first = '', second = ''] = text.split('\n');
  expect(code).toBe(0);
  for (const line of [first, second]) expect(line.indexOf('open ')).toBe(head.indexOf('STATE'));
  expect(first).toMatch(/critical +mass_staleness +open +\S+s ago +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +40 +1 +40 executors fell silent\?\[2J/);
  expect(second).toMatch(/error +hung_executor +open .* web-1 +e1 on web-1/);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: none may get through
  expect(text).not.toMatch(/\x1b/);
  expect((await run('incidents', '--severity', 'error', '--limit', '1')).text).not.toContain('mass_staleness');
  expect((await run('incidents', '--limit', '1')).text).toContain('1 more: see --limit');
});

test('JSON has everything that the list shows, with times that a program can read', async () => {
  const { database, json } = await createDesk();
  await project(database, 'n', 'hung_executor', [HUNG]);
  const { incidents, total } = await json('incidents', '--class', 'hung_executor', '--node', 'web-1', '--queue', 'pay', '--since', '1h');
  expect(total).toBe(1);
  const [incident] = incidents as Record<string, unknown>[];
  expect(incident).toMatchObject({ class: 'hung_executor', severity: 'error', state: 'open', env: 'prod', evidence: HUNG.evidence });
  expect(Date.parse(String(incident?.['openedAt']))).toBeGreaterThan(Date.parse('2020-01-01'));
});

test.each([
  [['--class', 'nonsense'], '--class: given nonsense; allowed: mass_staleness, '],
  [['--severity', 'bad'], '--severity: given bad; allowed: critical, error, warning'],
  [['--since', 'yesterday'], '--since: given yesterday; allowed: a duration'],
  [['--limit', '0'], '--limit: given 0; allowed: 1 to 999999'],
  [['--all', '--resolved'], '--all and --resolved'],
  [['show', 'x'], 'ID: given x; allowed: a number'],
  [['snooze', '1', '--reason', 'long enough', '--for', 'ever'], '--for: given ever'],
])('incidents %j is a usage error that says what is allowed', async (args, message) => {
  const { run } = await createDesk();
  await expect(run('incidents', ...args)).rejects.toMatchObject({ name: 'UsageError', message: expect.stringContaining(message) });
});

test('one incident whole: evidence, what happened and was done, what is under way, and commands to paste', async () => {
  const { url, boss, database, run, json } = await createDesk();
  const id = await boss.send('pay', {});
  const executor = await createExecutor(url, database, 'worker');
  await executor.fetch('pay');
  await executor.die();
  await sweepOnce(url, { RECLAIMD_POLICY: 'hold' });
  const [held] = (await json('incidents', '--class', 'held_orphan'))['incidents'] as { id: string }[];
  const incidentId = held?.id ?? '';
  await run('incidents', 'acknowledge', incidentId, '--reason', 'asking the shop', '--actor', 'ada@desk');
  const { text } = await run('incidents', 'show', incidentId);
  const target = `pay/${id}`;
  for (const said of [
    `incident ${incidentId}: held_orphan, warning, acknowledged`,
    `${target} is held: its executor is dead`,
    /opened +\d+\.\ds ago \(\d{4}-\d\d-\d\dT[\d:.]+Z\)/,
    /acknowledged +by ada@desk .*: asking the shop/,
    /executorId +worker/,
    /occurrence 1 of 1, seen by test/,
    /test held 1 attempt \(policy hold\)/,
    /ada@desk incident_acknowledge incident\/\d+: done \(asking the shop\)/,
    'the policy of its queue holds it for a person',
    `reclaimd preview job_rescue ${target} --policy restart`,
    `reclaimd preview job_discard ${target}`,
  ])
    expect(text).toEqual(said instanceof RegExp ? expect.stringMatching(said) : expect.stringContaining(said));
  expect(await json('incidents', 'show', incidentId)).toMatchObject({
    history: [{ opening: 1, resolvedAt: null }],
    occurrencesKept: [{ number: 1, evidence: { jobId: id } }],
    rescues: [{ outcome: 'held', jobs: 1 }],
    audit: expect.arrayContaining([expect.objectContaining({ action: 'incident_acknowledge' })]),
    advice: { repairs: [{ command: `reclaimd preview job_rescue ${target} --policy fail` }, {}, {}] },
  });
});

test('a resolved incident is shown with its end, and offers no repair any more', async () => {
  const { database, run, json } = await createDesk();
  await project(database, 'n', 'hung_executor', [HUNG]);
  await project(database, 'n', 'hung_executor', []);
  expect((await run('incidents')).text).toBe('no incidents');
  const [incident] = (await json('incidents', '--resolved'))['incidents'] as { id: string }[];
  const { text } = await run('incidents', 'show', incident?.id ?? '');
  expect(text).toContain('resolved: its condition was gone');
  expect(text).not.toContain('reclaimd preview');
});

test('attention says what it did, and a refusal is one sentence with exit code 3', async () => {
  const { database, run, json } = await createDesk();
  await project(database, 'n', 'hung_executor', [HUNG]);
  const [incident] = (await json('incidents'))['incidents'] as { id: string }[];
  const id = incident?.id ?? '';
  const ada = ['--actor', 'ada@desk'];
  expect(await run('incidents', 'acknowledge', id, '--reason', 'too few', ...ada)).toEqual({
    code: 3,
    text: 'a reason of 8 characters or more is needed',
  });
  expect(await run('incidents', 'acknowledge', '999', '--reason', 'long enough', ...ada)).toMatchObject({ code: 3 });
  expect(await run('incidents', 'acknowledge', id, '--reason', 'long enough', ...ada)).toEqual({
    code: 0,
    text: `incident ${id} is acknowledged`,
  });
  const snoozed = await run('incidents', 'snooze', id, '--for', '2h', '--reason', 'long enough', ...ada);
  expect(snoozed).toEqual({ code: 0, text: expect.stringMatching(/^incident \d+ is snoozed until \d{4}-/) });
  expect((await run('incidents')).text).toMatch(/hung_executor +snoozed/);
  expect(await run('incidents', 'show', '999')).toEqual({ code: 1, text: expect.stringContaining('there is no incident 999') });
  expect(await database.query('SELECT actor, node FROM audit ORDER BY seq')).toEqual([
    { actor: 'ada@desk', node: 'desk' },
    { actor: 'ada@desk', node: 'desk' },
  ]);
});

test('who attends to what somebody has on their desk is told who and since when, and takes its place', async () => {
  const { database, run, json } = await createDesk();
  await project(database, 'n', 'hung_executor', [HUNG]);
  const find = async () => ((await json('incidents'))['incidents'] as Pick<Incident, 'id' | 'acknowledged' | 'snoozed'>[])[0];
  const id = (await find())?.id ?? '';
  const ask = (verb: string, actor: string, ...more: string[]) => [
    'incidents',
    verb,
    id,
    ...more,
    '--reason',
    `${actor} is on it`,
    '--actor',
    actor,
  ];
  await run(...ask('acknowledge', 'ann@desk'));
  const ofAnn = (await find())?.acknowledged;
  expect((await run(...ask('acknowledge', 'bob@desk'))).text).toBe(
    `incident ${id} is acknowledged\n  it was acknowledged already, by ann@desk at ${ofAnn?.at}: ann@desk is on it`,
  );
  const ofBob = (await find())?.acknowledged;
  expect(ofBob).toMatchObject({ by: 'bob@desk' });
  expect(await json(...ask('snooze', 'ann@desk', '--for', '2h'))).toMatchObject({
    done: true,
    before: { acknowledged: ofBob, snoozed: null },
  });
  const snoozed = (await find())?.snoozed;
  const again = await run(...ask('snooze', 'bob@desk', '--for', '1h'));
  expect(again.text).toContain(`  it was snoozed already, by ann@desk until ${snoozed?.until}: ann@desk is on it`);
  expect((await find())?.snoozed).toMatchObject({ by: 'bob@desk' });
});

test('watching draws again as things change, and ends with its signal', async () => {
  const { database, start } = await createDesk();
  const stopping = new AbortController();
  const watching = start(stopping.signal, 'incidents', '--watch');
  await waitFor('the first drawing', () => watching.lines.some((text) => text === 'no incidents'));
  await project(database, 'n', 'hung_executor', [HUNG]);
  await waitFor('the incident in a drawing', () => watching.lines.some((text) => text.includes('hung_executor')));
  stopping.abort();
  expect((await watching.ended).code).toBe(0);
});
