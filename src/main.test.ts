import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { COMPILE_CACHE } from '../test/support/compile-cache.ts';

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url));

function start(args: readonly string[], env: Record<string, string> = {}) {
  return spawn(process.execPath, [MAIN, ...args], {
    env: { ...COMPILE_CACHE, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

async function reclaimd(args: readonly string[], env: Record<string, string> = {}) {
  const child = start(args, env);
  const code = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { out, err, code: await code };
}

const COMMANDS = [
  'run',
  'demo',
  'check-config',
  'migrate',
  'install-ownership',
  'remove-ownership',
  'grants',
  'status',
  'executors',
  'orphans',
];

test('every command is listed and explains itself', async () => {
  const all = [...COMMANDS, 'sweep', 'policies', 'policies list', 'policies set', 'policies remove'];
  const { out, code } = await reclaimd(['--help']);
  expect(code).toBe(0);
  for (const name of all) expect(out).toContain(name.split(' ')[0]);
  for (const name of all) {
    const help = await reclaimd([...name.split(' '), '--help']);
    expect([name, help.code, help.out.split('\n')[0]]).toEqual([name, 0, expect.stringMatching(`^Usage: reclaimd ${name}`)]);
  }
});

test('polkit prints a rule for the units of the allowlist, and none where there are none', async () => {
  expect(await reclaimd(['polkit'], { RECLAIMD_UNITS: 'mail' })).toMatchObject({ code: 0, out: expect.stringContaining('^mail') });
  expect(await reclaimd(['polkit'])).toMatchObject({ code: 2, out: '', err: expect.stringContaining('RECLAIMD_UNITS') });
});

test('check-config prints what is in force, without the password', async () => {
  const env = { DATABASE_URL: 'postgres://app:hunter2@db/app', RECLAIMD_STARTUP_DELAY: '30s', RECLAIMD_LISTEN: '[::1]:0' };
  const { out, code } = await reclaimd(['check-config'], env);
  expect(code).toBe(0);
  expect(out).toMatch(/^DATABASE_URL +postgres:\/\/app:\*\*\*@db\/app$/m);
  expect(out).toMatch(/^RECLAIMD_STARTUP_DELAY +30s$/m);
  expect(out).toMatch(/^RECLAIMD_LISTEN +\[::1\]:0$/m);
  const json = await reclaimd(['check-config', '--json'], env);
  expect(JSON.parse(json.out)).toMatchObject({ RECLAIMD_POLICY: 'fail', DATABASE_URL: 'postgres://app:***@db/app' });
});

test.each([['check-config'], ['run'], ['status'], ['sweep'], ['migrate'], ['grants']])(
  '%s with a wrong configuration says every problem at once and exits 2',
  async (command) => {
    const { out, err, code } = await reclaimd([command], {
      DATABASE_URL: 'mysql://app:hunter2@db/app',
      RECLAIMD_BATCH: '0',
      RECLAIMD_DRYRUN: 'true',
    });
    expect(code).toBe(2);
    for (const said of [
      '3 problems',
      'DATABASE_URL',
      'RECLAIMD_BATCH: given "0"; allowed: a whole number',
      'did you mean RECLAIMD_DRY_RUN?',
    ])
      expect(err).toContain(said);
    expect(out + err).not.toContain('hunter2');
  },
);

test('check-config says, with the other problems, what the variables point at and cannot serve; without, it is in force', async () => {
  const pointing = {
    DATABASE_URL: 'postgres://db/app',
    RECLAIMD_PGBOSS_MODULE: '/does/not/exist/1',
    RECLAIMD_POLICY_MODULE: '/does/not/exist/2.js',
    RECLAIMD_ACTORS_FILE: '/does/not/exist/3',
    RECLAIMD_ARCHIVE_DIR: '/does/not/exist/4',
  };
  const { err, code } = await reclaimd(['check-config'], { ...pointing, RECLAIMD_BATCH: '0' });
  expect(code).toBe(2);
  expect(err).toContain('5 problems');
  expect(err).toMatch(/^ {2}RECLAIMD_BATCH: given "0"/m);
  expect(err).toMatch(/^ {2}RECLAIMD_PGBOSS_MODULE: .*exist\/1/m);
  expect(err).toMatch(/^ {2}RECLAIMD_POLICY_MODULE: .*exist\/2.js/m);
  expect(err).toMatch(/^ {2}RECLAIMD_ACTORS_FILE: .*exist\/3/m);
  expect(err).toMatch(/^ {2}RECLAIMD_ARCHIVE_DIR: .*exist\/4/m);
  expect((await reclaimd(['check-config'], pointing)).err).toContain('4 problems');
  const there = { RECLAIMD_ARCHIVE_DIR: tmpdir(), RECLAIMD_PGBOSS_MODULE: process.cwd() };
  expect(await reclaimd(['check-config'], { DATABASE_URL: 'postgres://db/app', ...there })).toMatchObject({ code: 0 });
});

test.each([[['nonsense']], [['sweep', '--nonsense']], [['policies', 'set', 'mail']]])('%j is a usage error: exit 2', async (args) => {
  const { err, code } = await reclaimd(args, { DATABASE_URL: 'postgres://db/app' });
  expect(code).toBe(2);
  expect(err).toContain('--help');
});

test('a database that is not there is a failure, in one line: exit 1', async () => {
  const { err, code } = await reclaimd(['status'], { DATABASE_URL: 'postgres://app:hunter2@127.0.0.1:1/app' });
  expect(code).toBe(1);
  expect(err).toMatch(/^reclaimd: .*ECONNREFUSED.*\n$/);
});

test.each(['off', 'system'])(
  'an address that is taken, maybe for a moment, is a failure of the daemon, with systemd %s: exit 1',
  async (systemd) => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void other.close());
    const listen = `127.0.0.1:${(other.address() as AddressInfo).port}`;
    const { err, code } = await reclaimd(['run'], {
      DATABASE_URL: 'postgres://127.0.0.1:1/app',
      RECLAIMD_LISTEN: listen,
      RECLAIMD_SYSTEMD: systemd,
      RECLAIMD_SYSTEMD_BUS: '/does/not/exist',
    });
    expect(err).toMatch(new RegExp(`^reclaimd: RECLAIMD_LISTEN: cannot listen on ${listen} \\(EADDRINUSE\\)`));
    expect(code).toBe(1);
  },
);

test('what it was given is shown, and steers no terminal', async () => {
  const { err } = await reclaimd(['audit', 'list', '--outcome', 'x\x1b[8m\u009b2J'], { DATABASE_URL: 'postgres://127.0.0.1:1/app' });
  expect(err).toMatch(/^reclaimd: --outcome: given x\\u001b\[8m\\u009b2J; allowed/);
});

test('an address that can never be listened on is a configuration error of the daemon: exit 2', async () => {
  const { err, code } = await reclaimd(['run'], { DATABASE_URL: 'postgres://127.0.0.1:1/app', RECLAIMD_LISTEN: '[fe80::1]:9464' });
  expect(err).toMatch(/^reclaimd: RECLAIMD_LISTEN: cannot listen on \[fe80::1\]:9464 \(EINVAL\)/);
  expect(code).toBe(2);
});

/** A daemon without a database, once it runs. */
async function startDaemon(env: Record<string, string> = {}) {
  const child = start(['run'], { DATABASE_URL: 'postgres://app:hunter2@127.0.0.1:1/app', RECLAIMD_LISTEN: '127.0.0.1:0', ...env });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  onTestFinished(() => void child.kill('SIGKILL'));
  let log = '';
  for await (const part of child.stdout.setEncoding('utf8')) {
    log += part;
    if (log.includes('"reclaimd runs"')) break;
  }
  return { child, log, ended, url: /"url":"(http:[^"]+)"/.exec(log)?.[1] };
}

test.each(['SIGTERM', 'SIGHUP'] as const)('the daemon starts without its database, says so, and %s ends it: exit 0', async (signal) => {
  const { child, log, ended, url } = await startDaemon();
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  const ready = await fetch(`${url}/readyz`);
  expect([ready.status, await ready.json()]).toEqual([503, expect.objectContaining({ database: 'down' })]);
  const signalledAt = performance.now();
  child.kill(signal);
  expect(await ended).toBe(0);
  expect(performance.now() - signalledAt).toBeLessThan(3_000);
  expect(log).toContain('ECONNREFUSED');
  expect(log).not.toContain('hunter2');
});

test('a signal ends the daemon, and a command, also where a module of the host keeps timers of its own', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-module-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  const module = join(directory, 'policy.mjs');
  await writeFile(module, 'setInterval(() => undefined, 1_000);\nexport default () => undefined;\n');
  const { child, ended } = await startDaemon({ RECLAIMD_POLICY_MODULE: module });
  child.kill('SIGTERM');
  expect(await ended).toBe(0);
  const command = start(['status'], { DATABASE_URL: 'postgres://127.0.0.1:1/app', RECLAIMD_POLICY_MODULE: module });
  const over = new Promise<number | null>((resolve) => command.once('close', resolve));
  onTestFinished(() => void command.kill('SIGKILL'));
  for await (const part of command.stderr.setEncoding('utf8')) if (part.includes('ECONNREFUSED')) break;
  command.kill('SIGINT');
  expect(await over).toBe(1);
});

test('a reader that goes away is no failure', async () => {
  const child = start(['check-config'], { DATABASE_URL: 'postgres://db/app' });
  child.stdout.destroy();
  expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0);
});
