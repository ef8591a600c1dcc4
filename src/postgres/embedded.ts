import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { findBinaries, type PostgresBinaries } from './binaries.ts';
import { type ServerProcess, spawnServer, unprivileged } from './server-process.ts';

export interface EmbeddedPostgres {
  url: string;
  /** Holds the URL, for its owner alone. */
  urlFile: string;
  pid: number;
  /** Fast shutdown; data is kept. */
  stop(): Promise<void>;
  /** As a power cut would: no checkpoint, no goodbye. */
  kill(): void;
}

export class EmbeddedPostgresFailed extends Error {
  override readonly name = 'EmbeddedPostgresFailed';
}

export interface EmbeddedOptions {
  /** Default: a free one. */
  port?: number;
  binaries?: PostgresBinaries;
  settings?: Record<string, string>;
}

const START_LIMIT_MS = 30_000;
/** A killed server's backends may outlive it, and a free port may be taken before the server has it: for so long it is worth another try. */
const RETRY_LIMIT_MS = 3_000;
const USER = 'postgres';
const WRONG_PASSWORD = '28P01';

/** A private Postgres whose files are all in `directory`, on a loopback port, with a password of its own. */
export async function startEmbeddedPostgres(directory: string, options: EmbeddedOptions = {}): Promise<EmbeddedPostgres> {
  const root = resolve(directory);
  const data = join(root, 'data');
  const log = join(root, 'postgres.log');
  const binaries = options.binaries ?? (await findBinaries());
  const password = await preparePassword(root);
  await refuseIfServed(data);
  if (!existsSync(join(data, 'PG_VERSION'))) await initialise(binaries.initdb, root, data);
  const startedAt = performance.now();
  for (;;) {
    const port = options.port ?? (await takeFreePort());
    const settings = {
      port: String(port),
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      max_connections: '300',
      ...options.settings,
    };
    const logStart = await stat(log).then(
      ({ size }) => size,
      () => 0,
    );
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const server = spawnServer(binaries.postgres, ['-D', data, ...flags], log);
    const url = `postgres://${USER}:${password}@127.0.0.1:${port}/postgres`;
    const obstacle = await waitUntilReady(url, server);
    if (obstacle === undefined) {
      const urlFile = await writeUrl(root, url);
      return { url, urlFile, pid: server.pid, stop: server.stop, kill: server.kill };
    }
    if (server.ended() === undefined || performance.now() - startedAt > RETRY_LIMIT_MS) {
      server.kill();
      const said = (await readFile(log).catch(() => Buffer.alloc(0))).subarray(logStart).toString().trim().split('\n').slice(-5);
      throw new EmbeddedPostgresFailed(`Postgres in ${root} did not start: ${[obstacle, ...said].join('\n')}`.trim());
    }
    await delay(250);
  }
}

/** mkdir's own `recursive` tries for ever where a directory is there and can hold none, as /proc. */
async function makeDirectory(path: string): Promise<void> {
  if (existsSync(path)) return;
  await makeDirectory(dirname(path));
  await mkdir(path, { mode: 0o700 }).catch((error: unknown) => {
    // Somebody else was at it, too.
    if (!existsSync(path)) throw error;
  });
}

async function preparePassword(root: string): Promise<string> {
  const file = join(root, 'password');
  try {
    await makeDirectory(root);
    const known = (await readFile(file, 'utf8').catch(() => '')).trim();
    if (known !== '') return known;
    const password = randomBytes(18).toString('hex');
    await writeFile(file, password, { mode: 0o600 });
    return password;
  } catch (cause) {
    throw new EmbeddedPostgresFailed(`${root} cannot hold a database: ${(cause as Error).message}`, { cause });
  }
}

/** The password is for no screen and no log, so that whoever wants the URL takes it from here. */
async function writeUrl(root: string, url: string): Promise<string> {
  const file = join(root, 'database-url');
  // A mode is given to a new file only.
  await rm(file, { force: true });
  await writeFile(file, `${url}\n`, { mode: 0o600 });
  return file;
}

/** Postgres guards its directory itself, but says so only in its log. One that was just killed may take a moment to be gone. */
async function refuseIfServed(data: string): Promise<void> {
  const startedAt = performance.now();
  for (let pid = await findServer(data); pid !== undefined; pid = await findServer(data)) {
    if (performance.now() - startedAt > RETRY_LIMIT_MS)
      throw new EmbeddedPostgresFailed(`${data} is already being served by process ${pid}: stop it, or give another directory`);
    await delay(50);
  }
}

async function findServer(data: string): Promise<number | undefined> {
  const first = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '');
  const pid = Number(first.split('\n', 1)[0]);
  if (!pid) return undefined;
  const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  return command.includes(data) ? pid : undefined;
}

/** Beside its place first: an initialisation that was cut short leaves nothing that looks like a database. */
async function initialise(initdb: string, root: string, data: string): Promise<void> {
  const unfinished = `${data}.unfinished`;
  await rm(unfinished, { recursive: true, force: true });
  const [command, ...args] = unprivileged(initdb, [
    ...['-D', unfinished, '-U', USER, '--pwfile', join(root, 'password')],
    ...['--auth=scram-sha-256', '--encoding=UTF8', '--locale=C.UTF-8'],
  ]);
  await promisify(execFile)(command, args).catch((cause: Error & { stderr?: string }) => {
    throw new EmbeddedPostgresFailed(`initdb in ${root} failed: ${cause.stderr?.trim() || cause.message}`, { cause });
  });
  await rename(unfinished, data);
}

async function takeFreePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done));
  const { port } = probe.address() as AddressInfo;
  await new Promise((done) => probe.close(done));
  return port;
}

/** @returns why it will not become ready; undefined when it is. */
async function waitUntilReady(url: string, server: ServerProcess): Promise<string | undefined> {
  const deadline = performance.now() + START_LIMIT_MS;
  for (;;) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.end();
      return server.ended();
    } catch (error) {
      if (server.ended() !== undefined) return server.ended();
      if ((error as { code?: string }).code === WRONG_PASSWORD) return 'its file "password" is not that of its data';
      if (performance.now() > deadline) return `it did not answer within ${START_LIMIT_MS / 1000} s`;
      await delay(50);
    }
  }
}
