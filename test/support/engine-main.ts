// A small event-driven workflow engine: three steps, a job each; the end of a job is an event that starts the next.
// It hears events only in this process, so a kill loses them. `killAt` is where it is killed.
import pg from 'pg';
import { PgBoss } from 'pg-boss';
import { createDatabase } from '../../src/postgres/database.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { createLogger } from '../../src/runtime/logger.ts';
import { instanceMoved, onReplay, stepMoved, trackStep } from '../../src/workflows/tracking.ts';

const { url, killAt, begin } = JSON.parse(process.argv[2] ?? '{}') as { url: string; killAt?: string; begin?: string };
const STEPS = ['order', 'pay', 'ship'];
const here = (point: string) => point === killAt && process.kill(process.pid, 'SIGKILL');
const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false, migrate: false, instanceHeartbeatSeconds: 5, max: 3 });
boss.on('error', () => undefined);
await boss.start();
const pool = new pg.Pool({ connectionString: url, max: 3 });
pool.on('error', () => undefined);
const log = createLogger('silent', 'engine');
const listening = createDatabase(
  { url, applicationName: 'engine', searchPath: ['reclaimd'], maxConnections: 1, statementTimeoutMs: 5_000, lockTimeoutMs: 5_000 },
  { clock: systemClock, log },
);

async function transaction(work: (client: pg.PoolClient) => Promise<void>): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    await work(client);
    await client.query('COMMIT');
    client.release();
  } catch (error) {
    // Closing the connection rolls back, whatever has become of it.
    client.release(true);
    throw error;
  }
}

async function startStep(client: pg.PoolClient, instanceId: string, step: string): Promise<void> {
  const db = { executeSql: (text: string, values?: unknown[]) => client.query(text, values) };
  const jobId = (await boss.send('step', { instanceId, step }, { db })) ?? '';
  await trackStep(client, { instanceId, step, queue: 'step', jobId, workflow: 'sale' });
}

/** The engine's whole logic: a step has ended, so the next one begins. Told twice, it acts once. */
async function onEvent({ instanceId, step, jobId }: { instanceId: string; step: string; jobId: string }): Promise<void> {
  await transaction(async (client) => {
    if (!(await stepMoved(client, { instanceId, step, jobId }))) return;
    await client.query('INSERT INTO public.effect VALUES ($1, $2)', [instanceId, step]);
    here('inside the event');
    const next = STEPS[STEPS.indexOf(step) + 1];
    if (next) await startStep(client, instanceId, next);
    else await instanceMoved(client, { instanceId, state: 'completed' });
  });
  here('after the event');
}

/** An event that cannot be taken now is told again. */
const hear = (event: Parameters<typeof onEvent>[0]) => onEvent(event).catch((error: unknown) => log.warn({ err: error }, 'told in vain'));

onReplay(listening, (event) => void hear(event));
if (begin) await transaction((client) => startStep(client, begin, STEPS[0] ?? ''));
here('after the start');
for (;;) {
  const [job] = await boss.fetch<{ instanceId: string; step: string }>('step', { includeMetadata: true });
  if (!job) await systemClock.sleep(50);
  else {
    here('in the job');
    await boss.complete('step', { id: job.id, retryCount: job.retryCount });
    here('before the event');
    await hear({ ...job.data, jobId: job.id });
  }
}
