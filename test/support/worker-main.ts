// A pg-boss worker as an application would write it: it knows nothing of reclaimd. Its options come as one JSON argument.
import pg from 'pg';
import { type ConstructorOptions, PgBoss } from 'pg-boss';

export interface WorkerOptions {
  url: string;
  queues: string[];
  schema?: string;
  concurrency?: number;
  batchSize?: number;
  pollingIntervalSeconds?: number;
  instanceHeartbeatSeconds?: number;
  /** What a job does: end after `jobMs`, never end, or block the event loop for `jobMs`. */
  mode?: 'sleep' | 'forever' | 'block';
  jobMs?: number;
  heartbeatRefreshSeconds?: number;
  /** A name that the application gives to its sessions; '' for a pool of its own, whose sessions carry none. */
  applicationName?: string;
  /** Whether pg-boss registers it; default: yes. */
  registers?: boolean;
}

const options = JSON.parse(process.argv[2] ?? '{}') as WorkerOptions;
const say = (event: object) => process.stdout.write(`${JSON.stringify(event)}\n`);
const { mode = 'sleep', jobMs = 50 } = options;

/** The sessions' name is pg-boss's to make, the application's, or none. */
function connection(): ConstructorOptions {
  const { url, applicationName } = options;
  if (applicationName === undefined) return { connectionString: url };
  if (applicationName !== '') return { connectionString: url, application_name: applicationName };
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  return { db: { executeSql: (text, values) => pool.query(text, values) } };
}

const boss = new PgBoss({
  ...connection(),
  registerInstance: options.registers ?? true,
  schema: options.schema ?? 'pgboss',
  supervise: false,
  schedule: false,
  migrate: false,
  instanceHeartbeatSeconds: options.instanceHeartbeatSeconds ?? 5,
  max: 4,
});
boss.on('error', (error) => say({ event: 'error', message: error.message }));
await boss.start();
for (const queue of options.queues) {
  const work = {
    includeMetadata: true as const,
    batchSize: options.batchSize ?? 1,
    pollingIntervalSeconds: options.pollingIntervalSeconds ?? 0.5,
    localConcurrency: options.concurrency ?? 1,
    ...(options.heartbeatRefreshSeconds === undefined ? {} : { heartbeatRefreshSeconds: options.heartbeatRefreshSeconds }),
  };
  await boss.work(queue, work, async (jobs) => {
    for (const { id, retryCount } of jobs) say({ event: 'started', queue, id, retryCount });
    if (mode === 'forever') await new Promise(() => setInterval(() => undefined, 60_000));
    if (mode === 'block') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, jobMs);
    await new Promise((done) => setTimeout(done, jobMs));
    for (const { id, retryCount } of jobs) say({ event: 'finished', queue, id, retryCount });
  });
}
const [instance] = (await boss.getInstances()).filter((candidate) => candidate.pid === process.pid);
say({ event: 'ready', pid: process.pid, instance: instance?.id });
process.once('SIGTERM', () => {
  void boss.stop({ timeout: 2_000 }).then(() => process.exit(0));
});
