// A pg-boss worker as any application has one: it knows nothing of reclaimd.
import { PgBoss } from 'pg-boss';

const [queue = '', jobMs = '1000'] = process.argv.slice(2);
// biome-ignore lint/style/noProcessEnv: a process of its own, and a password is for no command line
const url = process.env['DATABASE_URL'] ?? '';

const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false, migrate: false, instanceHeartbeatSeconds: 1, max: 6 });
boss.on('error', () => undefined);
await boss.start();
const work = { includeMetadata: true, transactional: true, localConcurrency: 2, pollingIntervalSeconds: 0.5 } as const;
await boss.work(queue, work, async ([job], tx) => {
  if (!job) return;
  process.send?.({ started: job.id });
  await new Promise((resolve) => setTimeout(resolve, Number(jobMs)));
  // A bug that takes the process down, once.
  if ((job.data as { crash?: boolean }).crash && job.retryCount === 0) process.abort();
  // The job's effect, committed together with its completion.
  await tx.executeSql('INSERT INTO demo_effect (job_id, pid) VALUES ($1, $2)', [job.id, process.pid]);
});
process.send?.('ready');
const stop = () => void boss.stop({ timeout: 10_000 }).then(() => process.exit(0));
process.once('SIGTERM', stop);
// The demo is gone: do not outlive it.
process.once('disconnect', () => process.exit(1));
if (!process.connected) process.exit(1);
