import { PgBoss } from 'pg-boss';
import { onTestFinished } from 'vitest';
import type { Recovered } from '../../src/actions/rescue.ts';
import { type ContextOptions, openContext } from '../../src/context.ts';
import { refreshHeartbeats } from '../../src/executors/health.ts';
import type { Database } from '../../src/postgres/database.ts';
import { type SweepReport, sweep } from '../../src/recovery/sweep.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { testConfig } from './daemon.ts';
import { silentLog } from './database.ts';

/**
 * An executor of the test's own making: its beats are ours to stop, and its end ours to declare. Its name is made as
 * pg-boss makes one, so that its sessions may go on after the end that was declared.
 */
export async function createExecutor(
  url: string,
  database: Database,
  id: string,
  { schema = 'pgboss', env, stack }: { schema?: string; env?: string; stack?: string } = {},
) {
  const applicationName = `pgboss:${id.slice(0, 8)}`;
  // A beat so fast that the grace of two beats after the server's start is over by now.
  await refreshHeartbeats(database, [
    { executorId: id, applicationName, beatSeconds: 0.1, ...(env ? { env } : {}), ...(stack ? { stack } : {}) },
  ]);
  const boss = new PgBoss({
    connectionString: url,
    application_name: applicationName,
    schema,
    supervise: false,
    schedule: false,
    registerInstance: false,
    max: 2,
  });
  boss.on('error', () => undefined);
  await boss.start();
  onTestFinished(() => boss.stop({ graceful: false }));
  return {
    boss,
    fetch: async (queue: string, batchSize = 1) => (await boss.fetch(queue, { batchSize, includeMetadata: true })) ?? [],
    die: () => database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now(), last_alive_at = now() WHERE id = $1`, [id]),
    /** As if it had last been heard of so long ago. */
    fallSilent: (seconds: number) =>
      database.query(
        `UPDATE executor SET beat_at = now() - make_interval(secs => $2), session_at = NULL, started_at = started_at - make_interval(secs => $2) WHERE id = $1`,
        [id, seconds],
      ),
  };
}

/** The context that a command of the configured node would have; closed at the end of the test. */
export async function openTestContext(url: string, env: Record<string, string> = {}, options: Partial<ContextOptions> = {}) {
  const context = openContext({
    config: testConfig(url, env),
    databaseUrl: url,
    role: 'test',
    trustsDatabaseRole: true,
    clock: systemClock,
    log: silentLog,
    ...options,
  });
  onTestFinished(() => context.close());
  await context.checkSchema();
  await context.probePgBoss();
  return context;
}

/** One sweep as the command does it. */
export async function sweepOnce(
  url: string,
  env: Record<string, string> = {},
  options: Partial<ContextOptions> & { dryRun?: boolean } = {},
): Promise<SweepReport & { recovered: Recovered[] }> {
  const { dryRun = false, ...contextOptions } = options;
  const context = await openTestContext(url, env, contextOptions);
  const recovered: Recovered[] = [];
  const report = await sweep(context.sweepDependencies(null, dryRun), { onBatch: (result) => recovered.push(...result.recovered) });
  return { ...report, recovered };
}
