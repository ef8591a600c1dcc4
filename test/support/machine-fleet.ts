import { fileURLToPath } from 'node:url';
import type { PgBoss, Queue } from 'pg-boss';
import { onTestFinished } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Database } from '../../src/postgres/database.ts';
import { createFleetDatabase } from './database.ts';
import { type Machine, startMachine } from './systemd-machine.ts';
import { waitFor } from './wait.ts';
import type { WorkerOptions } from './worker-main.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const WORKER = fileURLToPath(new URL('./worker-main.ts', import.meta.url));

export interface MachineFleet {
  url: string;
  boss: PgBoss;
  database: Database;
  /** A machine with the daemon as a plain service of it, and `worker@.service` to start instances of. */
  addMachine(hostname: string, options?: MachineOptions): Promise<Machine>;
}

export interface MachineOptions {
  env?: Record<string, string>;
  worker?: Partial<WorkerOptions>;
  /** More lines of the worker's [Service]. */
  service?: string;
}

/** A fleet whose hosts are machines with a real systemd; one database. */
export async function createMachineFleet(queues: (Omit<Queue, 'name'> & { name: string })[] = [{ name: 'mail' }]): Promise<MachineFleet> {
  const fleet = await createFleetDatabase({ queues });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  return {
    ...fleet,
    addMachine: async (hostname, { env = {}, worker = {}, service = 'Restart=always\nRestartSec=100ms' } = {}) => {
      const machine = await startMachine({ hostname });
      onTestFinished(() => machine.stop());
      const settings = {
        DATABASE_URL: fleet.url,
        RECLAIMD_LISTEN: 'off',
        RECLAIMD_UNITS: 'worker@',
        RECLAIMD_STARTUP_DELAY: '0s',
        RECLAIMD_OUTAGE_GRACE: '0s',
        RECLAIMD_HEAL_SETTLE: '1s',
        ...env,
      };
      const environment = Object.entries(settings).map(([name, value]) => `Environment="${name}=${value}"`);
      const options: WorkerOptions = { url: fleet.url, queues: queues.map(({ name }) => name), mode: 'forever', ...worker };
      await machine.writeUnits({
        'reclaimd.service': `[Service]\n${environment.join('\n')}\nExecStart=${process.execPath} ${MAIN} run\n`,
        'worker@.service': `[Service]\nExecStart=${process.execPath} ${WORKER} ${quote(JSON.stringify(options))}\nTimeoutStopSec=3\n${service}\n`,
      });
      await machine.run('systemctl', ['start', 'reclaimd']);
      return machine;
    },
  };
}

/** One word of a unit file's command line. */
const quote = (word: string) => `"${word.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%').replaceAll('$', '$$$$')}"`;

export interface Life {
  id: string;
  pid: number;
  verdict: string;
  unit: string | null;
}

/** Waits until so many executors of that host are held in sight by its daemon. */
export function waitForAdopted({ database }: MachineFleet, host: string, count: number): Promise<Life[]> {
  return waitFor(`${count} executors on ${host} to be adopted`, async () => {
    const rows = await database.query<Life>(
      `SELECT id, pid, verdict, unit FROM executor
         WHERE host = $1 AND witness_node IS NOT NULL AND proof IS NULL AND stopped_at IS NULL AND unit IS NOT NULL ORDER BY started_at`,
      [host],
    );
    return rows.length >= count && rows;
  });
}
