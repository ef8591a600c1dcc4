import { onTestFinished } from 'vitest';
import { type Config, loadConfig } from '../../src/config.ts';
import { createDaemon, type Daemon, type DaemonOptions } from '../../src/daemon.ts';
import { silentLog } from './database.ts';

export function testConfig(url: string, env: Record<string, string> = {}): Config {
  const loaded = loadConfig({
    DATABASE_URL: url,
    RECLAIMD_NODE: 'test',
    RECLAIMD_LISTEN: 'off',
    RECLAIMD_SYSTEMD: 'off',
    RECLAIMD_PROCESSES: 'on',
    RECLAIMD_STARTUP_DELAY: '0s',
    RECLAIMD_OUTAGE_GRACE: '0s',
    RECLAIMD_SWEEP_INTERVAL: '1s',
    ...env,
  });
  if ('problems' in loaded) throw new Error(JSON.stringify(loaded.problems));
  return loaded.config;
}

/** A daemon in this process, stopped at the end of the test. */
export async function startTestDaemon(url: string, env: Record<string, string> = {}, options: DaemonOptions = {}): Promise<Daemon> {
  const daemon = await createDaemon(testConfig(url, env), { log: silentLog, ...options });
  let stopped: Promise<void> | undefined;
  const stop = () => (stopped ??= daemon.stop());
  onTestFinished(stop);
  return { ...daemon, stop };
}
