import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { describeConfig, loadConfig, variablesTable } from './config.ts';

const DATABASE_URL = 'postgres://user:secret@db:5432/app';

function problemsOf(env: Record<string, string>) {
  const loaded = loadConfig({ DATABASE_URL, ...env });
  return 'problems' in loaded ? loaded.problems : [];
}

function configOf(env: Record<string, string>) {
  const loaded = loadConfig({ DATABASE_URL, ...env });
  if ('problems' in loaded) throw new Error(JSON.stringify(loaded.problems));
  return loaded.config;
}

test('defaults are the documented ones', () => {
  const config = configOf({});
  expect(config).toMatchObject({
    schema: 'reclaimd',
    pgbossSchema: 'pgboss',
    policy: 'fail',
    maxRecoveries: 3,
    startupDelayMs: 120_000,
    batch: 1000,
    dryRun: false,
    policies: [],
    stack: undefined,
  });
  expect(config.listen).toEqual({ host: '127.0.0.1', port: 9464 });
  expect(Object.isFrozen(config)).toBe(true);
});

test('every problem is reported at once, with the name, what was given and what is allowed', () => {
  const loaded = loadConfig({ RECLAIMD_BATCH: 'many', RECLAIMD_DRY_RUN: 'yes', RECLAIMD_LISTEN: '80' });
  if (!('problems' in loaded)) throw new Error('accepted');
  expect(loaded.problems.map(({ variable }) => variable).sort()).toEqual([
    'DATABASE_URL',
    'RECLAIMD_BATCH',
    'RECLAIMD_DRY_RUN',
    'RECLAIMD_LISTEN',
  ]);
  expect(loaded.problems).toContainEqual({ variable: 'RECLAIMD_BATCH', given: '"many"', allowed: 'a whole number from 1 to 5000' });
});

test('supervision that is taken over needs a grace after outages', () => {
  const env = { RECLAIMD_PGBOSS_SUPERVISE: 'true', RECLAIMD_OUTAGE_GRACE: '0s' };
  expect(problemsOf(env).map(({ variable }) => variable)).toEqual(['RECLAIMD_OUTAGE_GRACE']);
  expect(problemsOf({ ...env, RECLAIMD_OUTAGE_GRACE: '15s' })).toEqual([]);
  expect(problemsOf({ ...env, RECLAIMD_PGBOSS_SUPERVISE: 'false' })).toEqual([]);
});

test.each([
  ['RECLAIMD_STARTUP_DELAY', ''],
  ['RECLAIMD_STARTUP_DELAY', '5'],
  ['RECLAIMD_STARTUP_DELAY', '1.5m'],
  ['RECLAIMD_SWEEP_INTERVAL', '100ms'],
  ['RECLAIMD_BATCH', ''],
  ['RECLAIMD_BATCH', '0'],
  ['RECLAIMD_BATCH', '1e3'],
  ['RECLAIMD_DRY_RUN', 'TRUE'],
  ['RECLAIMD_DRY_RUN', ''],
  ['RECLAIMD_POLICY', 'retry'],
  ['RECLAIMD_POLICIES', 'a=b'],
  ['RECLAIMD_POLICIES', 'a=hold:max=x'],
  ['RECLAIMD_POLICIES', ''],
  ['RECLAIMD_NODE', ' '],
  ['RECLAIMD_SCHEMA', 'pg_mine'],
  ['RECLAIMD_SCHEMA', '$user'],
  ['RECLAIMD_SCHEMA', 'r'.repeat(48)],
  ['RECLAIMD_PGBOSS_SCHEMA', 'my-boss'],
  ['RECLAIMD_LISTEN', '127.0.0.1:99999'],
  ['DATABASE_URL', 'mysql://db/app'],
  ['DATABASE_URL', 'embedded:'],
])('%s=%j is refused, not coerced', (name, value) => {
  expect(problemsOf({ [name]: value }).map(({ variable }) => variable)).toEqual([name]);
});

test('what is refused is named, and that a secret is empty is no secret', () => {
  expect(problemsOf({ RECLAIMD_SCHEMA: 'A"b' })).toMatchObject([{ given: '"A\\"b"', allowed: expect.stringContaining('without `"`') }]);
  expect(problemsOf({ RECLAIMD_PGBOSS_SCHEMA: '"a.b"' })).toMatchObject([{ allowed: expect.stringMatching(/anything but .*`\.`/) }]);
  expect(problemsOf({ DATABASE_URL: '' })).toMatchObject([{ variable: 'DATABASE_URL', given: '(empty)' }]);
});

test('policies, schema spellings and addresses are read', () => {
  expect(configOf({ RECLAIMD_POLICIES: 'charge-*=hold, mail=restart:max=5:poison=hold:stale=10m' }).policies).toEqual([
    { queue: 'charge-*', policy: 'hold' },
    { queue: 'mail', policy: 'restart', maxRecoveries: 5, poison: 'hold', staleAfterMs: 600_000 },
  ]);
  expect(configOf({ RECLAIMD_PGBOSS_SCHEMA: '"My-Boss"' }).pgbossSchema).toBe('"My-Boss"');
  expect(configOf({ RECLAIMD_LISTEN: '[::1]:0' }).listen).toEqual({ host: '::1', port: 0 });
  expect(configOf({ RECLAIMD_LISTEN: 'off' }).listen).toBe('off');
});

test('what is in force is spelled as the variables take it', () => {
  const given = {
    RECLAIMD_RETENTION_BUDGET: '300s',
    RECLAIMD_RETAIN_AUDIT: '365d',
    RECLAIMD_RETAIN_RUNS: 'never',
    RECLAIMD_STARTUP_DELAY: '0ms',
    RECLAIMD_OUTAGE_GRACE: '1500ms',
    RECLAIMD_POLICIES: 'charge-*=hold, mail=restart:max=5:poison=hold:stale=600s',
    RECLAIMD_WORKFLOW_POLICIES: 'mail-*=cancel-children,charge=retry-parent:max=2',
    RECLAIMD_UNITS: 'mail@ app-* !app-database',
    RECLAIMD_LISTEN: '[::1]:0',
  };
  const config = configOf(given);
  const shown = Object.fromEntries(describeConfig(config).map(({ variable, value }) => [variable, value]));
  expect(shown).toMatchObject({
    RECLAIMD_RETENTION_BUDGET: '5m',
    RECLAIMD_RETAIN_AUDIT: '365d',
    RECLAIMD_RETAIN_RUNS: 'never',
    RECLAIMD_STARTUP_DELAY: '0s',
    RECLAIMD_OUTAGE_GRACE: '1500ms',
    RECLAIMD_SWEEP_INTERVAL: '10s',
    RECLAIMD_HUNG_AFTER: '(none)',
    RECLAIMD_POLICIES: 'charge-*=hold,mail=restart:max=5:poison=hold:stale=10m',
  });
  const again = Object.fromEntries(Object.entries(shown).filter(([, value]) => value !== '(none)'));
  expect(configOf({ ...again, DATABASE_URL })).toEqual(config);
});

test("reclaimd's schema is not pg-boss's, however that is spelled", () => {
  expect(problemsOf({ RECLAIMD_SCHEMA: 'pgboss' }).map(({ variable }) => variable)).toEqual(['RECLAIMD_SCHEMA']);
  expect(problemsOf({ RECLAIMD_SCHEMA: 'boss', RECLAIMD_PGBOSS_SCHEMA: 'BOSS' })).toHaveLength(1);
  expect(problemsOf({ RECLAIMD_SCHEMA: 'boss', RECLAIMD_PGBOSS_SCHEMA: '"BOSS"' })).toEqual([]);
});

test('an unknown name gets a suggestion', () => {
  expect(problemsOf({ RECLAIMD_BACTH: '5' })).toEqual([
    { variable: 'RECLAIMD_BACTH', given: 'a variable that does not exist', allowed: 'did you mean RECLAIMD_BATCH?' },
  ]);
  expect(problemsOf({ RECLAIMD_SOMETHING_ELSE_ENTIRELY: '5' })[0]?.allowed).toContain('README');
});

test('a value may come from a file, but not from both', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'reclaimd-config-')), 'url');
  writeFileSync(file, 'postgres://from:file@db/app\n');
  const loaded = loadConfig({ DATABASE_URL_FILE: file });
  expect('config' in loaded && loaded.config.databaseUrl).toBe('postgres://from:file@db/app');
  expect(problemsOf({ DATABASE_URL_FILE: file })).toHaveLength(1);
  const missing = loadConfig({ DATABASE_URL_FILE: '/nowhere/at/all' });
  expect('problems' in missing && missing.problems[0]).toMatchObject({ variable: 'DATABASE_URL_FILE', given: '/nowhere/at/all' });
});

test('no secret is ever shown', () => {
  const shown = JSON.stringify(describeConfig(configOf({})));
  expect(shown).not.toContain('secret');
  const problems = loadConfig({ DATABASE_URL: 'mysql://user:secret@db/app' });
  expect(JSON.stringify(problems)).not.toContain('secret');
  expect(JSON.stringify(loadConfig({ DATABASE_URL: 'user:secret@db' }))).not.toContain('secret');
});

test("the README's table is the code's", () => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const table = readme.split('<!-- variables -->')[1]?.split('<!-- /variables -->')[0]?.trim();
  expect(table).toBe(variablesTable());
});
