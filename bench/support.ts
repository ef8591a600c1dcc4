import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { PgBoss } from 'pg-boss';
import { claimFleet } from '../src/fleet/queries.ts';
import { createDatabase, type Database } from '../src/postgres/database.ts';
import { startEmbeddedPostgres } from '../src/postgres/embedded.ts';
import { migrate } from '../src/postgres/migrate.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { createLogger } from '../src/runtime/logger.ts';

export interface Bench {
  quick: boolean;
  url: string;
  database: Database;
  boss: PgBoss;
}

export const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

/** A private server with pg-boss and reclaimd in it, for one measurement; durable as in production. */
export async function withServer(quick: boolean, measure: (bench: Bench) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-bench-'));
  const server = await startEmbeddedPostgres(directory, {
    settings: { shared_buffers: '512MB', max_wal_size: '4GB', shared_preload_libraries: 'pg_stat_statements' },
  });
  const database = createDatabase(
    {
      url: server.url,
      applicationName: 'bench',
      searchPath: ['reclaimd', 'pgboss'],
      maxConnections: 4,
      statementTimeoutMs: 600_000,
      lockTimeoutMs: 60_000,
    },
    { clock: systemClock, log: createLogger('silent', 'bench') },
  );
  const boss = new PgBoss({ connectionString: server.url, supervise: false, schedule: false, registerInstance: false, max: 4 });
  boss.on('error', (error) => console.error(error.message));
  try {
    await boss.start();
    await migrate(database, TARGET.schema);
    await claimFleet(database, TARGET.pgbossSchema);
    await measure({ quick, url: server.url, database, boss });
  } finally {
    await boss.stop({ graceful: false });
    await database.close();
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

export async function printVersions(): Promise<void> {
  const versionOf = (path: string) => (JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as { version: string }).version;
  console.log(
    `reclaimd ${versionOf('../package.json')}, pg-boss ${versionOf('../node_modules/pg-boss/package.json')}, node ${process.version}, ${cpus().length} cores (${cpus()[0]?.model})`,
  );
  await withServer(true, async ({ database }) => {
    const [row] = await database.query<{ version: string }>('SHOW server_version');
    console.log(`Postgres ${(Object.values(row ?? {}) as string[])[0]}`);
  });
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

export const median = (values: readonly number[]) => quantile(values, 0.5);

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

/** A connection that hears each requeue of a job as it is committed; the trigger is the bench's own. */
export async function listenForRequeues(url: string): Promise<{ next(jobId: string): Promise<number>; close(): Promise<void> }> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(`
    CREATE OR REPLACE FUNCTION public.bench_requeued() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_notify('bench_requeued', NEW.id::text); RETURN NEW; END $$;
    CREATE OR REPLACE TRIGGER bench_requeued AFTER INSERT OR UPDATE ON pgboss.job_common FOR EACH ROW
      WHEN (NEW.state IN ('retry', 'failed')) EXECUTE FUNCTION public.bench_requeued();
    LISTEN bench_requeued`);
  const waiting = new Map<string, (at: number) => void>();
  client.on('notification', ({ payload = '' }) => waiting.get(payload)?.(performance.now()));
  return {
    next: (jobId) => new Promise((resolve) => waiting.set(jobId, resolve)),
    close: () => client.end(),
  };
}
