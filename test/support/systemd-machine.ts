import { type ChildProcess, type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { COMPILE_CACHE } from './compile-cache.ts';
import { waitFor } from './wait.ts';

const BOOT = fileURLToPath(new URL('./systemd-machine.sh', import.meta.url));
const CHECKOUT = dirname(dirname(dirname(BOOT)));
const SYSTEMD = '/lib/systemd/systemd';
/** No real machine is back within the moment of its end; its clock since boot is exact to the second here. */
const OFF_MS = 4_000;

export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

export interface CommandOptions {
  env?: Record<string, string>;
  /** Who runs it in there; default root. */
  user?: string;
}

/**
 * A machine with a real systemd as its pid 1, its own D-Bus, journal, units, host name and boot id, on the file system of
 * this host behind an overlay: nothing written in there reaches it. The network is the host's, so is the time of day.
 * Where the host's memory controller belongs to cgroup v1 the machine has none, and nothing in it can run out of memory.
 */
export interface Machine {
  readonly hostname: string;
  /** Of its systemd, as this host numbers it; another one after a reboot. */
  readonly pid: number;
  readonly bootId: string;
  /** Its system bus, for a connection from outside. */
  readonly busAddress: string;
  /** Where this host sees a file of the machine. */
  path(inside: string): string;
  /** Fails when the command does. */
  run(command: string, args?: readonly string[], options?: CommandOptions): Promise<string>;
  /** As it ended, whatever its exit code. */
  try(command: string, args?: readonly string[], options?: CommandOptions): Promise<CommandResult>;
  /** In the machine's namespaces, but in no unit of it: for a process in a unit, write the unit. */
  spawn(command: string, args?: readonly string[], options?: CommandOptions): ChildProcessByStdio<null, Readable, Readable>;
  /** Writes it to /etc/systemd/system and reloads; kept over a reboot. */
  writeUnit(name: string, text: string): Promise<void>;
  writeUnits(units: Readonly<Record<string, string>>): Promise<void>;
  /** A property as `systemctl show` prints it. */
  property(unit: string, name: string): Promise<string>;
  /** Power cut and boot: another boot id, no process of before, the same unit files. */
  reboot(): Promise<void>;
  /** Power cut: every process in it is killed. */
  stop(): Promise<void>;
}

/** Why no machine can be had here; undefined where it can. */
export function findObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  const missing = [SYSTEMD, '/usr/bin/dbus-daemon', '/usr/bin/unshare', '/usr/bin/nsenter'].filter((path) => !existsSync(path));
  if (missing.length > 0) return `${missing.join(', ')} missing`;
  const cgroups = cgroupMount();
  if (cgroups === undefined) return 'cgroup2 is not mounted';
  try {
    accessSync(cgroups, constants.W_OK);
  } catch {
    return `${cgroups} is read-only`;
  }
  return undefined;
}

function cgroupMount(): string | undefined {
  return /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/mounts', 'utf8'))?.[1];
}

interface Booted {
  pid: number;
  bootId: string;
  halt(): Promise<void>;
}

async function boot(hostname: string): Promise<Booted> {
  const cgroups = cgroupMount();
  if (cgroups === undefined) throw new Error('cgroup2 is not mounted');
  const bootId = randomUUID();
  const cgroup = join(cgroups, `reclaimd-test-${bootId}`);
  const scratch = await mkdtemp(join(tmpdir(), 'reclaimd-machine-'));
  await mkdir(cgroup);
  const seen = [CHECKOUT, dirname(dirname(process.execPath))];
  // Its clocks since boot begin now, as they do where a machine boots.
  const up = Math.floor(Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]));
  const clocks = ['--time', '--boottime', String(-up), '--monotonic', String(-up)];
  const namespaces = ['unshare', '--pid', '--mount', '--ipc', '--uts', ...clocks, '--fork', '--kill-child'];
  // The test's own end, even by a kill, ends the machine.
  const outer = spawn('setpriv', ['--pdeathsig', 'KILL', ...namespaces, BOOT, scratch, hostname, bootId, cgroup, ...seen], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let complaints = '';
  outer.stderr.on('data', (chunk: Buffer) => {
    complaints += chunk.toString();
  });
  const over = new Promise<void>((done) => outer.once('exit', () => done()));

  async function halt(): Promise<void> {
    outer.kill('SIGKILL');
    await over;
    await waitFor('the machine to be gone', () => removeCgroup(cgroup));
    await rm(scratch, { recursive: true });
  }

  try {
    const pid = await waitFor(`machine ${hostname} to boot`, () => {
      if (outer.exitCode !== null) throw new Error(`the machine did not boot: ${complaints}`);
      const child = childOf(outer);
      return child !== undefined && existsSync(`/proc/${child}/root/run/machine-ready`) && child;
    });
    return { pid, bootId, halt };
  } catch (error) {
    await halt();
    throw error;
  }
}

function childOf({ pid }: ChildProcess): number | undefined {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return children === '' ? undefined : Number(children.split(' ')[0]);
}

/** False while a process is left in it. */
async function removeCgroup(cgroup: string): Promise<boolean> {
  try {
    for (const entry of await readdir(cgroup, { withFileTypes: true }))
      if (entry.isDirectory() && !(await removeCgroup(join(cgroup, entry.name)))) return false;
    await rmdir(cgroup);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false;
    throw error;
  }
  return true;
}

/** Boots in less than a second. Stop it at the end of the test; several make several nodes. */
export async function startMachine({ hostname }: { hostname: string }): Promise<Machine> {
  const units = new Map<string, string>();
  let booted = await boot(hostname);

  const path = (inside: string) => `/proc/${booted.pid}/root${inside}`;

  function start(command: string, args: readonly string[], options: CommandOptions) {
    const as = options.user === undefined ? [] : ['runuser', '-u', options.user, '--'];
    return [
      'nsenter',
      ['--target', String(booted.pid), '--all', '--root', '--wd', '--', ...as, command, ...args],
      { env: { PATH: `${dirname(process.execPath)}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`, ...COMPILE_CACHE, ...options.env } },
    ] as const;
  }

  const attempt: Machine['try'] = (command, args = [], options = {}) =>
    new Promise((done) => {
      execFile(...start(command, args, options), (error, stdout, stderr) => {
        const code = typeof error?.code === 'number' ? error.code : error ? -1 : 0;
        done({ code, stdout: String(stdout), stderr: String(stderr) });
      });
    });

  const run: Machine['run'] = async (command, args = [], options = {}) => {
    const { code, stdout, stderr } = await attempt(command, args, options);
    if (code !== 0) {
      const journal = command === 'systemctl' ? (await attempt('journalctl', ['--no-pager', '--lines=15', '--output=cat'])).stdout : '';
      throw new Error(`${command} ${args.join(' ')} on ${hostname} ended with ${code}: ${stderr || stdout}${journal}`);
    }
    return stdout;
  };

  const writeUnits: Machine['writeUnits'] = async (texts) => {
    for (const [name, text] of Object.entries(texts)) {
      units.set(name, text);
      await writeFile(path(`/etc/systemd/system/${name}`), text);
    }
    await run('systemctl', ['daemon-reload']);
  };

  return {
    hostname,
    get pid() {
      return booted.pid;
    },
    get bootId() {
      return booted.bootId;
    },
    get busAddress() {
      return `unix:path=${path('/run/dbus/system_bus_socket')}`;
    },
    path,
    run,
    try: attempt,
    spawn: (command, args = [], options = {}) => {
      const [file, words, { env }] = start(command, args, options);
      return spawn(file, words, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    },
    writeUnit: (name, text) => writeUnits({ [name]: text }),
    writeUnits,
    property: async (unit, name) => (await run('systemctl', ['show', '--value', '--property', name, unit])).trim(),
    reboot: async () => {
      await booted.halt();
      await delay(OFF_MS);
      booted = await boot(hostname);
      await writeUnits(Object.fromEntries(units));
    },
    stop: () => booted.halt(),
  };
}
