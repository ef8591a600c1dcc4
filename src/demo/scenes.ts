import type { Database } from '../postgres/database.ts';
import { Interrupted } from './interrupted.ts';
import { isAdopted, listRecoveries, type RecoveryRow, readVerdict } from './queries.ts';
import type { Worker, Workers } from './workers.ts';

export interface Stage {
  database: Database;
  boss: { send(queue: string, data: object, options: { priority: number }): Promise<string | null> };
  queue: string;
  workers: Workers;
  say(who: string, text: string, tone?: 'good' | 'bad' | 'quiet'): void;
  signal: AbortSignal;
}

export interface SceneResult {
  scene: 'killed' | 'crashed' | 'frozen' | 'stopped';
  worker: string;
  /** Jobs that were in its hands. */
  jobs: number;
  recovered: number;
  /** Slowest of them, from the last sign of life to the requeue, by the database; null when none was to come back. */
  seconds: number | null;
  kept: boolean;
}

const DEADLINE_MS = 45_000;

/** Asks until the answer is there; the demo shows real things, and they take the time that they take. */
export async function until<T>(stage: Pick<Stage, 'signal'>, what: string, ask: () => Promise<T | false> | T | false): Promise<T> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    if (stage.signal.aborted) throw new Interrupted('interrupted');
    const answer = await ask();
    if (answer !== false) return answer;
    if (performance.now() > deadline) throw new Error(`the demo waited ${DEADLINE_MS / 1000} s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Jobs that a worker has in its hands right now. */
function jobsInHand({ database, queue }: Stage, worker: Worker): Promise<string[]> {
  return database
    .query<{ id: string }>(`SELECT id FROM job WHERE name = $1 AND state = 'active' AND id = ANY($2)`, [queue, worker.started])
    .then((rows) => rows.map((row) => row.id));
}

async function aBusyWorker(stage: Stage): Promise<{ worker: Worker; jobs: string[] }> {
  return until(stage, 'a busy worker', async () => {
    for (const worker of stage.workers.all()) {
      const jobs = await jobsInHand(stage, worker);
      if (jobs.length === 2 && (await isAdopted(stage.database, worker.pid))) return { worker, jobs };
    }
    return false;
  });
}

async function awaitRecoveries(stage: Stage, worker: Worker, count: number): Promise<RecoveryRow[]> {
  const rows = await until(stage, `the jobs of ${worker.name}`, async () => {
    const found = await listRecoveries(stage.database, worker.pid);
    return found.length >= count && found;
  });
  for (const { node, jobId, outcome, proof, seconds } of rows) {
    stage.say(
      node,
      `job ${jobId.slice(0, 8)} is back in the queue (${outcome}, ${proof ?? 'silence'}), ${milliseconds(seconds)} after its worker's last sign of life`,
      'good',
    );
  }
  return rows;
}

const milliseconds = (seconds: number) => `${Math.round(seconds * 1000)} ms`;
const slowest = (rows: readonly RecoveryRow[]) => Math.max(...rows.map(({ seconds }) => seconds));

async function replace(stage: Stage): Promise<void> {
  const { name, pid } = await stage.workers.start();
  stage.say(name, `started in its place, pid ${pid}`, 'quiet');
}

/** SIGKILL: no goodbye, no handler. Its jobs come back at once. */
export async function killed(stage: Stage): Promise<SceneResult> {
  const { worker, jobs } = await aBusyWorker(stage);
  stage.say(worker.name, `kill -9 ${worker.pid}, with ${jobs.length} jobs in its hands`, 'bad');
  worker.signal('SIGKILL');
  const rows = await awaitRecoveries(stage, worker, jobs.length);
  await replace(stage);
  return {
    scene: 'killed',
    worker: worker.name,
    jobs: jobs.length,
    recovered: rows.length,
    seconds: slowest(rows),
    kept: rows.length === jobs.length,
  };
}

/** A bug takes the process down in the middle of a job. */
export async function crashed(stage: Stage): Promise<SceneResult> {
  const bomb = await stage.boss.send(stage.queue, { crash: true }, { priority: 10 });
  const worker = await until(
    stage,
    'a worker to meet the job that crashes it',
    () => stage.workers.all().find(({ started }) => started.includes(bomb ?? '')) ?? false,
  );
  stage.say(worker.name, `has begun a job that will crash it, pid ${worker.pid}`, 'quiet');
  await worker.exited;
  stage.say(worker.name, 'crashed in the middle of it', 'bad');
  const rows = await awaitRecoveries(stage, worker, 1);
  await replace(stage);
  return {
    scene: 'crashed',
    worker: worker.name,
    jobs: rows.length,
    recovered: rows.length,
    seconds: slowest(rows),
    kept: rows.some(({ jobId }) => jobId === bomb),
  };
}

/** SIGSTOP for longer than every threshold: it is silent, but it is there. It must not be touched. */
export async function frozen(stage: Stage): Promise<SceneResult> {
  const { worker, jobs } = await aBusyWorker(stage);
  stage.say(
    worker.name,
    `frozen with SIGSTOP, pid ${worker.pid}, with ${jobs.length} jobs in its hands; it stays so past every threshold`,
    'bad',
  );
  worker.signal('SIGSTOP');
  try {
    await until(stage, 'the daemons to call it hung', async () => (await readVerdict(stage.database, worker.pid)) === 'hung');
    stage.say('fleet', `${worker.name} is called hung: silent for more than 15 s, but its process is there`, 'good');
  } finally {
    worker.signal('SIGCONT');
  }
  const rows = await listRecoveries(stage.database, worker.pid);
  stage.say(
    worker.name,
    rows.length === 0 ? 'thawed; none of its jobs was taken' : `thawed; ${rows.length} of its jobs had been taken!`,
    rows.length === 0 ? 'good' : 'bad',
  );
  await until(stage, 'it to finish its jobs', async () => (await jobsInHand(stage, worker)).every((id) => !jobs.includes(id)));
  return { scene: 'frozen', worker: worker.name, jobs: jobs.length, recovered: rows.length, seconds: null, kept: rows.length === 0 };
}

/** SIGTERM: it finishes what it has and says goodbye. There is nothing to do. */
export async function stopped(stage: Stage): Promise<SceneResult> {
  const { worker, jobs } = await aBusyWorker(stage);
  stage.say(worker.name, `stopped with SIGTERM, pid ${worker.pid}, with ${jobs.length} jobs in its hands`, 'bad');
  worker.signal('SIGTERM');
  await worker.exited;
  await until(stage, 'its goodbye', async () => (await readVerdict(stage.database, worker.pid)) === 'stopped');
  const rows = await listRecoveries(stage.database, worker.pid);
  stage.say(worker.name, 'finished its jobs and said goodbye; nothing to do', 'good');
  await replace(stage);
  return { scene: 'stopped', worker: worker.name, jobs: jobs.length, recovered: rows.length, seconds: null, kept: rows.length === 0 };
}
