// A small event-driven workflow engine: three steps, a job each; the end of a job is an event that starts the next.
// It hears events only in this process, so a kill loses them. `killAt` is where it is killed.
import { PgBoss } from 'pg-boss';
import { createDatabase, createLogger, instanceMoved, onReplay, type Sql, stepMoved, systemClock, trackStep } from '../../src/index.ts';

const { url, killAt, begin } = JSON.parse(process.argv[2] ?? '{}') as { url: string; killAt?: string; begin?: string };
const STEPS = ['order', 'pay', 'ship'];
const here = (point: string) => point === killAt && process.kill(process.pid, 'SIGKILL');
const log = createLogger('silent', 'engine');
const limits = { maxConnections: 3, statementTimeoutMs: 5_000, lockTimeoutMs: 5_000 };
const database = createDatabase({ url, applicationName: 'engine', searchPath: ['reclaimd'], ...limits }, { clock: systemClock, log });
const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false, migrate: false, instanceHeartbeatSeconds: 5, max: 3 });
boss.on('error', () => undefined);
await boss.start();

async function startStep(tx: Sql, instanceId: string, step: string): Promise<void> {
  const db = { executeSql: async (text: string, values?: unknown[]) => ({ rows: await tx.query(text, values) }) };
  const jobId = (await boss.send('step', { instanceId, step }, { db })) ?? '';
  await trackStep(tx, { instanceId, step, queue: 'step', jobId, workflow: 'sale' });
}

/** The engine's whole logic: a step has ended, so the next one begins. Told twice, it acts once. */
async function onEvent({ instanceId, step, jobId }: { instanceId: string; step: string; jobId: string }): Promise<void> {
  await database.transaction(async (tx) => {
    if (!(await stepMoved(tx, { instanceId, step, jobId }))) return;
    await tx.query('INSERT INTO public.effect VALUES ($1, $2)', [instanceId, step]);
    here('inside the event');
    const next = STEPS[STEPS.indexOf(step) + 1];
    if (next) await startStep(tx, instanceId, next);
    else await instanceMoved(tx, { instanceId, state: 'completed' });
  });
  here('after the event');
}

/** An event that cannot be taken now is told again. */
const hear = (event: Parameters<typeof onEvent>[0]) => onEvent(event).catch((error: unknown) => log.warn({ err: error }, 'told in vain'));

onReplay(database, (event) => void hear(event));
if (begin) await database.transaction((tx) => startStep(tx, begin, STEPS[0] ?? ''));
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
