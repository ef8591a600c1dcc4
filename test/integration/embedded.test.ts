import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { EmbeddedPostgresMissing, findBinaries } from '../../src/postgres/binaries.ts';
import { type EmbeddedOptions, EmbeddedPostgresFailed, startEmbeddedPostgres } from '../../src/postgres/embedded.ts';
import { spawnDaemon } from '../support/daemon-process.ts';
import { binariesOfMajor } from '../support/postgres-majors.ts';
import { waitFor } from '../support/wait.ts';

const binaries = await binariesOfMajor(process.env['TEST_POSTGRES_MAJOR'] ?? '18');

async function createDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-embedded-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Stopped at the end of the test, whatever the test does with it. */
async function start(directory: string, options: EmbeddedOptions = {}) {
  const server = await startEmbeddedPostgres(directory, { binaries, settings: { fsync: 'off' }, ...options });
  onTestFinished(() => server.stop());
  return server;
}

async function ask(url: string, statement: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  return client
    .query(statement)
    .then(({ rows }) => rows, Promise.reject.bind(Promise))
    .finally(() => client.end());
}

const isServing = async (pid: number) => (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).includes('postgres');

test('a new directory becomes a database that answers, stops, and is the same one when started again', async () => {
  const directory = join(await createDirectory(), 'not', 'there yet');
  const first = await start(directory);
  expect(await ask(first.url, 'SELECT current_setting($$server_encoding$$) AS encoding')).toEqual([{ encoding: 'UTF8' }]);
  await ask(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
  expect(await isServing(first.pid)).toBe(true);
  await first.stop();
  expect(await isServing(first.pid)).toBe(false);
  await expect(ask(first.url, 'SELECT 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  await first.stop();
  const second = await start(directory);
  expect(await ask(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
});

test('nobody gets in without its password, or reads its files', async () => {
  const directory = join(await createDirectory(), 'private');
  const { url } = await start(directory);
  const password = new URL(url).password;
  expect(password.length).toBeGreaterThan(30);
  expect((await readFile(join(directory, 'password'), 'utf8')).trim()).toBe(password);
  for (const [name, mode] of [
    ['', 0o700],
    ['data', 0o700],
    ['password', 0o600],
    ['database-url', 0o600],
    ['postgres.log', 0o600],
  ] as const)
    expect((await stat(join(directory, name))).mode & 0o777).toBe(mode);
  const guessed = new URL(url);
  guessed.password = 'postgres';
  await expect(ask(guessed.href, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
  expect(await ask(url, `SELECT current_setting('listen_addresses') AS on, current_setting('unix_socket_directories') AS sockets`)).toEqual(
    [{ on: '127.0.0.1', sockets: '' }],
  );
});

test('a directory that cannot be made is refused at once', async () => {
  for (const directory of ['/proc/foo', '/proc/foo/bar', '/dev/null/foo'])
    await expect(startEmbeddedPostgres(directory, { binaries })).rejects.toThrow(EmbeddedPostgresFailed);
});

test('the daemon tells no password, but where its URL is', async () => {
  const directory = await createDirectory();
  await writeFile(join(directory, 'database-url'), 'left behind, for all to read', { mode: 0o644 });
  const daemon = await spawnDaemon(`embedded:${directory}`);
  const [line] = daemon.log as unknown as { DATABASE_URL_FILE: string }[];
  const file = join(directory, 'database-url');
  expect(line?.DATABASE_URL_FILE).toBe(file);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  const loaded = loadConfig({ DATABASE_URL_FILE: file });
  const url = 'config' in loaded ? loaded.config.databaseUrl : '';
  expect(await ask(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  expect(JSON.stringify(daemon.log)).not.toContain(new URL(url).password);
  daemon.kill('SIGTERM');
  await daemon.exited;
});

test('the port and the settings that were asked for are used', async () => {
  const directory = await createDirectory();
  const probe = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  await expect(start(directory, { port })).rejects.toThrow(/did not start.*could not bind/s);
  await new Promise((done) => probe.close(done));
  const { url } = await start(directory, { port, settings: { fsync: 'off', max_connections: '17' } });
  expect(new URL(url).port).toBe(String(port));
  expect(await ask(url, `SELECT current_setting('max_connections') AS max`)).toEqual([{ max: '17' }]);
});

test('a directory that is being served is refused, and goes on being served', async () => {
  const directory = await createDirectory();
  const { url, pid } = await start(directory);
  const second = await start(directory).catch((error: unknown) => error);
  expect(second).toBeInstanceOf(EmbeddedPostgresFailed);
  expect((second as Error).message).toContain(`already being served by process ${pid}`);
  expect(await ask(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

test('a server that was killed at work leaves no process, and what it had committed is there at once', async () => {
  const directory = await createDirectory();
  const first = await start(directory, { settings: {} });
  await ask(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
  const busy = ask(first.url, 'SELECT sum(g) FROM generate_series(1, 1e12) g').catch(() => 'cut off');
  const [backend] = (await waitFor('the long statement', async () => {
    const rows = await ask(first.url, `SELECT pid FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND pid <> pg_backend_pid()`);
    return rows.length > 0 && rows;
  })) as { pid: number }[];
  first.kill();
  expect(await busy).toBe('cut off');
  const second = await start(directory);
  expect(await isServing(backend?.pid as number)).toBe(false);
  expect(await ask(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
});

test('a stale pid file, and an initialisation that was cut short, are no obstacle', async () => {
  const directory = await createDirectory();
  await mkdir(join(directory, 'data.unfinished'));
  await writeFile(join(directory, 'data.unfinished', 'PG_VERSION'), '18\n');
  const first = await start(directory);
  await first.stop();
  expect(existsSync(join(directory, 'data.unfinished'))).toBe(false);
  await writeFile(join(directory, 'data', 'postmaster.pid'), `${process.pid}\n${join(directory, 'data')}\n`);
  await expect(start(directory)).resolves.toBeDefined();
});

test('what the server says is in the error when it cannot start', async () => {
  const failing = await start(await createDirectory(), { settings: { no_such_setting: 'on' } }).catch((error: unknown) => error);
  expect(failing).toBeInstanceOf(EmbeddedPostgresFailed);
  expect((failing as Error).message).toContain('no_such_setting');
});

test('a password file that is not that of the data is named', async () => {
  const directory = await createDirectory();
  await (await start(directory)).stop();
  await writeFile(join(directory, 'password'), 'another');
  await expect(start(directory)).rejects.toThrow(/its file "password" is not that of its data/);
});

test('a package that is not installed is an EmbeddedPostgresMissing that says what to install', async () => {
  const error = await findBinaries('not-installed').catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(EmbeddedPostgresMissing);
  expect((error as Error).message).toContain('install the package not-installed');
});

test('the server of a process that is killed goes down in order', async () => {
  const directory = await createDirectory();
  const module = new URL('../../src/postgres/embedded.ts', import.meta.url).href;
  const script = `const { startEmbeddedPostgres } = await import(${JSON.stringify(module)});
    const { pid, url } = await startEmbeddedPostgres(...JSON.parse(process.argv[1]));
    console.log(JSON.stringify({ pid, url }));`;
  const owner = spawn(process.execPath, ['--input-type=module', '-e', script, JSON.stringify([directory, { binaries }])], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void owner.kill('SIGKILL'));
  const [line] = (await once(createInterface({ input: owner.stdout }), 'line')) as [string];
  const { pid, url } = JSON.parse(line) as { pid: number; url: string };
  expect(await ask(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  owner.kill('SIGKILL');
  await waitFor('the server to go', async () => !(await isServing(pid)));
  expect(await readFile(join(directory, 'postgres.log'), 'utf8')).toContain('database system is shut down');
});
