import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { accountName } from '../../src/cli/actor.ts';
import * as policies from '../../src/cli/policies.ts';
import { execute, preview } from '../../src/cli/repairs.ts';
import { runInstallOwnership, runRemoveOwnership } from '../../src/cli/schema.ts';
import { runSweep } from '../../src/cli/sweep.ts';
import { UsageError } from '../../src/cli/usage-error.ts';
import { installOwnership, ownershipState } from '../../src/ownership/install.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase, createTestDatabase } from '../support/database.ts';
import { createExecutor } from '../support/executor.ts';
import { createScriptedUnits, FAILED } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';

async function setUp(attempts = 2) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'mail' }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(fleet.url, fleet.database, 'worker');
  await fleet.boss.insert(
    'mail',
    Array.from({ length: attempts }, () => ({})),
  );
  const [first, second] = (await executor.fetch('mail', attempts)).map(({ id }) => id);
  await executor.die();
  const lines: string[] = [];
  const surroundings = {
    env: { DATABASE_URL: fleet.url, RECLAIMD_NODE: 'here' } as Record<string, string>,
    out: (text: string) => lines.push(text),
    signal: new AbortController().signal,
  };
  return { ...fleet, surroundings, lines, first, second };
}

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const ANN = { actor: 'ann@desk' };

test('preview prints the plan and the command that executes it; that command does it and says so', async () => {
  const { surroundings, lines, boss, first } = await setUp();
  expect(await preview(surroundings, 'executor_rescue', ['worker'], ANN)).toBe(0);
  const shown = lines.join('\n');
  expect(shown).toMatch(/executor_rescue worker: dead, its process is gone/);
  expect(shown).toMatch(new RegExp(`mail/${first}\\s+active \\(attempt 0\\)\\s+worker \\(dead\\)\\s+fail \\(default\\)\\s+retry`));
  const token = /preview 1 is good for 15m.*, once, for you:\n {2}reclaimd execute (\S+) --actor ann@desk --reason/.exec(shown)?.[1] ?? '';
  lines.length = 0;
  expect(await execute(surroundings, token, { ...ANN, reason: 'it was killed' })).toBe(0);
  expect(lines.join('\n')).toMatch(/mail\/\S+: retry\n(.*\n)*executor_rescue: 2 of 2 done/);
  expect((await boss.findJobs('mail')).map(({ state }) => state)).toEqual(['retry', 'retry']);
});

test('who asks by the name of their account need not say it again; a name is quoted for the shell', async () => {
  const { surroundings, lines, first } = await setUp();
  const env = { ...surroundings.env, SUDO_USER: 'ann' };
  expect(await preview({ ...surroundings, env }, 'job_cancel', [`mail/${first}`], { actor: accountName(env) })).toBe(0);
  expect(lines.at(-1)).toMatch(/reclaimd execute \S+ --reason '...'$/);
  expect(await preview({ ...surroundings, env }, 'job_cancel', [`mail/${first}`], { actor: 'ann o@desk' })).toBe(0);
  expect(lines.at(-1)).toMatch(/reclaimd execute \S+ --actor 'ann o@desk' --reason '...'$/);
});

test.each([
  ['Ctrl-C', '\x03'],
  ['Ctrl-D', '\x04'],
])('%s where the reason is asked for does nothing, says so, and leaves the token good', async (_, key) => {
  const { surroundings, lines, database } = await setUp();
  expect(await preview(surroundings, 'executor_rescue', ['worker'], ANN)).toBe(0);
  const token = /reclaimd execute (\S+)/.exec(lines.join('\n'))?.[1] ?? '';
  // util-linux: a command on a terminal of its own.
  const command = `${process.execPath} ${MAIN} execute ${token} --actor ann@desk`;
  const child = spawn('script', ['-qec', command, '/dev/null'], { env: { ...process.env, ...COMPILE_CACHE, ...surroundings.env } });
  onTestFinished(() => void child.kill('SIGKILL'));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  let screen = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    screen += part;
  });
  await waitFor('the question', () => screen.includes('Why ('));
  child.stdin.write(key);
  expect(await ended).toBe(1);
  expect(screen).toMatch(/^reclaimd: no reason was given: nothing was done, and the token is still good\r?$/m);
  expect(await database.query('SELECT status FROM repair_preview')).toEqual([{ status: 'ready' }]);
  expect(await execute(surroundings, token, { ...ANN, reason: 'it was killed' })).toBe(0);
});

test('attempts beyond what one repair takes are told before and after, and make it partly done', async () => {
  const { surroundings, lines } = await setUp(1001);
  expect(await preview(surroundings, 'executor_rescue', ['worker'], ANN)).toBe(0);
  expect(lines.join('\n')).toContain('mind: it holds 1 more than one repair takes');
  const token = /reclaimd execute (\S+)/.exec(lines.join('\n'))?.[1] ?? '';
  lines.length = 0;
  expect(await execute(surroundings, token, { ...ANN, reason: 'it was killed' })).toBe(1);
  expect(lines.join('\n')).toMatch(/executor_rescue: 1000 of 1000 done\nit holds 1 more: preview executor_rescue again$/);
});

test('a refusal is exit code 3, partly done is 1, with one sentence each', async () => {
  const { surroundings, lines, boss, first } = await setUp();
  expect(await preview(surroundings, 'job_retry', [`mail/${first}`], ANN)).toBe(3);
  expect(lines).toEqual([
    'refused: it is active: job_retry is for failed and cancelled jobs; for one whose executor is gone there is job_rescue',
  ]);
  lines.length = 0;
  await preview(surroundings, 'executor_rescue', ['worker'], { ...ANN, json: true });
  const { token } = JSON.parse(lines.join('\n'));
  await boss.complete('mail', [first ?? '']);
  expect(await execute(surroundings, token, { ...ANN, reason: 'it was killed', json: true })).toBe(1);
  lines.length = 0;
  expect(await execute(surroundings, token, { ...ANN, reason: 'it was killed' })).toBe(3);
  expect(lines).toEqual(['refused: that token has been used: `reclaimd audit list` says what it did']);
});

test('without a terminal a reason must be given; in a dry run nothing is executed', async () => {
  const { surroundings } = await setUp();
  const token = '00000000-0000-0000-0000-000000000000';
  await expect(execute(surroundings, token, ANN)).rejects.toThrow('--reason');
  const dry = { ...surroundings, env: { ...surroundings.env, RECLAIMD_DRY_RUN: 'true' } };
  for (const given of [{ ...ANN, reason: 'long enough' }, ANN])
    await expect(execute(dry, token, given)).rejects.toThrow(
      new UsageError('RECLAIMD_DRY_RUN is set: nothing is executed; `reclaimd preview` shows what would be'),
    );
});

test('an actors file grants what it names and nothing else; denials are audited', async () => {
  const { surroundings, lines, database, first } = await setUp();
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-actors-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  const file = join(directory, 'actors.json');
  await writeFile(file, JSON.stringify({ actors: { 'ann@desk': [{ actions: ['job_*'], queues: ['mail'] }] } }), { mode: 0o600 });
  const guarded = { ...surroundings, env: { ...surroundings.env, RECLAIMD_ACTORS_FILE: file } };
  expect(await preview(guarded, 'job_rescue', [`mail/${first}`], ANN)).toBe(0);
  expect(await preview(guarded, 'job_rescue', [`mail/${first}`], { actor: 'bob@desk' })).toBe(3);
  expect(await preview(guarded, 'executor_rescue', ['worker'], ANN)).toBe(3);
  expect(lines.at(-1)).toMatch(/you may look only/);
  const unchanged = await database.query('SELECT * FROM policy');
  expect(await policies.set(guarded, 'mail', 'hold', ANN)).toBe(3);
  expect(await runSweep(guarded, ANN)).toBe(3);
  expect(await runRemoveOwnership(guarded, ANN)).toBe(3);
  expect(await database.query('SELECT * FROM policy')).toEqual(unchanged);
  expect(await database.query(`SELECT action FROM audit WHERE outcome = 'denied' ORDER BY seq`)).toEqual([
    { action: 'job_rescue' },
    { action: 'executor_rescue' },
    { action: 'policy_set' },
    { action: 'sweep' },
    { action: 'ownership_remove' },
  ]);
  expect(await policies.set(surroundings, 'mail', 'hold', ANN)).toBe(0);
  expect(await runSweep(surroundings, ANN)).toBe(0);
  expect(await database.query(`SELECT actor, action FROM audit WHERE outcome = 'done' ORDER BY seq`)).toEqual([
    { actor: 'ann@desk', action: 'policy_set' },
    { actor: 'ann@desk', action: 'sweep' },
  ]);
});

test('ownership is removed, installed and extended with its record, or not at all', async () => {
  const { surroundings, boss, database, url } = await setUp();
  const covered = async () => {
    const { installed, tables } = await ownershipState(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
    return installed ? tables.filter((table) => table.covered).length : 0;
  };
  const record = () => database.query(`SELECT actor, action, detail FROM audit ORDER BY seq`);
  const refuse = () => database.query('ALTER TABLE audit ADD CONSTRAINT closed CHECK (actor IS NULL) NOT VALID');
  const accept = () => database.query('ALTER TABLE audit DROP CONSTRAINT closed');
  await refuse();
  await expect(runRemoveOwnership(surroundings, ANN)).rejects.toThrow('closed');
  expect(await covered()).toBe(1);
  await accept();
  expect(await runRemoveOwnership(surroundings, ANN)).toBe(0);
  expect(await runRemoveOwnership(surroundings, ANN)).toBe(0);
  expect(await covered()).toBe(0);
  const removed = { actor: 'ann@desk', action: 'ownership_remove', detail: { tables: ['job_common'] } };
  expect(await record()).toEqual([removed]);

  await refuse();
  await expect(runInstallOwnership(surroundings, ANN)).rejects.toThrow('closed');
  expect(await covered()).toBe(0);
  await accept();
  expect(await runInstallOwnership(surroundings, ANN)).toBe(0);
  expect(await runInstallOwnership(surroundings, ANN)).toBe(0);
  expect(await covered()).toBe(1);
  const installed = { ...removed, action: 'ownership_install' };
  expect(await record()).toEqual([removed, installed]);

  await boss.createQueue('apart', { partition: true });
  await startTestDaemon(url);
  await waitFor('the new table to be covered', async () => (await covered()) === 2);
  const [, , extended] = await record();
  expect(extended).toEqual({ actor: 'reclaimd@test', action: 'ownership_install', detail: { tables: [expect.stringMatching(/^j/)] } });
});

test('without pg-boss a unit is repaired all the same; repairs of jobs are refused, and say why', async () => {
  const { url, connect } = await createTestDatabase();
  const database = connect();
  await migrate(database, 'reclaimd');
  const units = createScriptedUnits();
  units.set('app.service', FAILED);
  await startTestDaemon(
    url,
    { RECLAIMD_NODE: 'far', RECLAIMD_UNITS: 'app', RECLAIMD_HEAL: 'off', RECLAIMD_HEAL_SETTLE: '0s' },
    { units: { manager: units.manager, journal: units.journal } },
  );
  await waitFor('its first beat', async () => (await database.query('SELECT FROM node')).length === 1);
  const lines: string[] = [];
  const surroundings = {
    env: { DATABASE_URL: url, RECLAIMD_NODE: 'here' },
    out: (text: string) => lines.push(text),
    signal: new AbortController().signal,
  };
  expect(await preview(surroundings, 'unit_heal', ['far:app'], ANN)).toBe(0);
  const token = /reclaimd execute (\S+) /.exec(lines.join('\n'))?.[1] ?? '';
  expect(await execute(surroundings, token, { ...ANN, reason: 'its disk is mended' })).toBe(0);
  expect(units.calls).toContain('start app.service');
  lines.length = 0;
  expect(await preview(surroundings, 'job_retry', [`mail/${crypto.randomUUID()}`], ANN)).toBe(3);
  expect(lines).toEqual(["refused: pg-boss is not installed yet: the application's first start does that"]);
});
