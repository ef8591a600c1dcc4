import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { COMPILE_CACHE } from './compile-cache.ts';
import { underHostname } from './hostname.ts';
import { waitFor } from './wait.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

export interface DaemonProcess {
  pid: number;
  /** Its log so far, a line each. */
  log: { msg: string; level: string; time: string }[];
  kill(signal: NodeJS.Signals): void;
  exited: Promise<void>;
}

const CONTAINER = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child'];

/**
 * A daemon as `reclaimd run` starts it, in a process of its own; gone at the end of the test.
 * As root it may have another host name, or be `contained`: in a pid namespace and with a /proc of its own, but under this host's name.
 */
export async function spawnDaemon(
  url: string,
  env: Record<string, string> = {},
  { nodeArguments = [], hostname, contained = false }: { nodeArguments?: string[]; hostname?: string; contained?: boolean } = {},
): Promise<DaemonProcess> {
  const { PATH = '' } = process.env;
  const node = [process.execPath, ...nodeArguments, MAIN, 'run'];
  const renamed = underHostname(hostname, node);
  const [command = '', ...args] = contained ? [...CONTAINER, ...renamed] : renamed;
  const child = spawn(command, args, {
    env: {
      PATH,
      ...COMPILE_CACHE,
      DATABASE_URL: url,
      RECLAIMD_NODE: 'test',
      RECLAIMD_LISTEN: 'off',
      RECLAIMD_SYSTEMD: 'off',
      RECLAIMD_PROCESSES: 'on',
      RECLAIMD_STARTUP_DELAY: '0s',
      RECLAIMD_OUTAGE_GRACE: '0s',
      RECLAIMD_SWEEP_INTERVAL: '1s',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log: DaemonProcess['log'] = [];
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaints += chunk.toString();
  });
  createInterface({ input: child.stdout }).on('line', (line) => log.push(JSON.parse(line)));
  const exited = new Promise<void>((done) => child.once('exit', () => done()));
  onTestFinished(async () => {
    child.kill('SIGCONT');
    child.kill('SIGKILL');
    await exited;
  });
  await waitFor('the daemon to run', () => {
    if (child.exitCode !== null) throw new Error(`the daemon ended: ${complaints}`);
    return log.some(({ msg }) => msg === 'reclaimd runs');
  });
  return { pid: child.pid ?? 0, log, exited, kill: (signal) => void child.kill(signal) };
}
