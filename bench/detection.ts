import { type ChildProcess, fork, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { PgBoss } from 'pg-boss';
import { installOwnership } from '../src/ownership/install.ts';
import { type Bench, listenForRequeues, quantile, TARGET, withServer } from './support.ts';

const VICTIM = fileURLToPath(new URL('./victim.ts', import.meta.url));
const MAIN = fileURLToPath(new URL('../dist/main.js', import.meta.url));

interface Victim {
  child: ChildProcess;
  jobId: string;
}

/** A worker process with one job in its hands that will never end. */
async function startVictim(url: string, queue: string): Promise<Victim> {
  const child = fork(VICTIM, [url, queue], { stdio: 'ignore', execArgv: [] });
  const jobId = await new Promise<string>((resolve, reject) => {
    child.once('message', (id: string) => resolve(id));
    child.once('exit', () => reject(new Error('a victim ended before it was killed')));
  });
  return { child, jobId };
}

/** Kills one worker after another and times each from the signal to the commit that requeues its job. */
async function measureKills(
  { url, boss }: Bench,
  queue: string,
  kills: number,
  isReady: (victim: Victim) => Promise<void>,
): Promise<number[]> {
  const requeues = await listenForRequeues(url);
  const times: number[] = [];
  for (let index = 0; index < kills; index++) {
    await boss.send(queue, {});
    const victim = await startVictim(url, queue);
    await isReady(victim);
    const requeued = requeues.next(victim.jobId);
    const killedAt = performance.now();
    victim.child.kill('SIGKILL');
    times.push((await requeued) - killedAt);
    await boss.deleteAllJobs(queue);
  }
  await requeues.close();
  return times;
}

function print(label: string, times: readonly number[]): void {
  console.log(
    `  ${label.padEnd(44)} kills ${String(times.length).padStart(3)}  p50 ${quantile(times, 0.5).toFixed(0)} ms  p99 ${quantile(times, 0.99).toFixed(0)} ms  max ${Math.max(...times).toFixed(0)} ms`,
  );
}

/** Death to requeue: reclaimd, beside pg-boss alone on its tightest supported settings. */
export async function benchDetection(quick: boolean): Promise<void> {
  console.log('death to requeue (worker SIGKILLed, one daemon as a process of its own)');
  let reclaimd: number[] = [];
  await withServer(quick, async (bench) => {
    await bench.boss.createQueue('work', { retryLimit: 1000 });
    await installOwnership(bench.database, TARGET);
    const daemon = spawn(process.execPath, [MAIN, 'run'], {
      env: { ...process.env, DATABASE_URL: bench.url, RECLAIMD_LISTEN: 'off', RECLAIMD_LOG_LEVEL: 'error', RECLAIMD_PROCESSES: 'on' },
      stdio: 'inherit',
    });
    reclaimd = await measureKills(bench, 'work', quick ? 10 : 110, async (victim) => {
      const adopted = async () =>
        (
          await bench.database.query('SELECT FROM executor WHERE pid = $1 AND witness_node IS NOT NULL AND proof IS NULL', [
            victim.child.pid,
          ])
        ).length > 0;
      while (!(await adopted())) await new Promise((resolve) => setTimeout(resolve, 20));
    });
    daemon.kill('SIGTERM');
    await new Promise((resolve) => daemon.once('exit', resolve));
  });
  print('reclaimd', reclaimd);
  let alone: number[] = [];
  await withServer(quick, async (bench) => {
    await bench.boss.createQueue('work', { retryLimit: 1000, heartbeatSeconds: 10 });
    const supervisor = new PgBoss({
      connectionString: bench.url,
      superviseIntervalSeconds: 1,
      monitorIntervalSeconds: 1,
      schedule: false,
      registerInstance: false,
    });
    supervisor.on('error', () => undefined);
    await supervisor.start();
    alone = await measureKills(bench, 'work', quick ? 1 : 5, async () => undefined);
    await supervisor.stop({ graceful: false });
  });
  print('pg-boss alone, beats 10 s, supervised every 1 s', alone);
  console.log(`  ratio of the medians: ${(quantile(alone, 0.5) / quantile(reclaimd, 0.5)).toFixed(0)} times sooner`);
}
