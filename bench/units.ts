import { fileURLToPath } from 'node:url';
import { installOwnership } from '../src/ownership/install.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { createLogger } from '../src/runtime/logger.ts';
import { createUnitManager } from '../src/systemd/unit-manager.ts';
import { findObstacle, type Machine, startMachine } from '../test/support/systemd-machine.ts';
import { waitFor } from '../test/support/wait.ts';
import { type Bench, listenForRequeues, quantile, TARGET, withServer } from './support.ts';

const MAIN = fileURLToPath(new URL('../dist/main.js', import.meta.url));
const WORKER = fileURLToPath(new URL('../test/support/worker-main.ts', import.meta.url));

/** In a machine with a real systemd: from the kill of a unit's worker to its job's requeue, from a failure to the heal's start, and one look at 500 units. */
export async function benchUnits(quick: boolean): Promise<void> {
  const obstacle = findObstacle();
  if (obstacle !== undefined) return console.log(`units: not measured, a machine with systemd ${obstacle}`);
  const rounds = quick ? 5 : 40;
  await withServer(quick, async (bench) => {
    const machine = await startMachine({ hostname: 'bench' });
    try {
      await bench.boss.createQueue('work', { retryLimit: 1_000 });
      await installOwnership(bench.database, TARGET);
      await install(machine, bench.url);
      console.log(`units: ${rounds} kills each`);
      report('SIGKILL of a unit to its job back in the queue', await measureKills(bench, machine, rounds));
      report('a unit that failed to its heal begun', await measureHeals(bench, machine, rounds));
      await measureMassFailure(bench, machine, quick ? 20 : 200);
      await measureLook(machine, quick ? 50 : 500);
    } finally {
      await machine.stop();
    }
  });
}

async function install(machine: Machine, url: string): Promise<void> {
  const settings = {
    DATABASE_URL: url,
    RECLAIMD_LISTEN: 'off',
    RECLAIMD_UNITS: 'app,many@*',
    RECLAIMD_HEAL_SETTLE: '0s',
    RECLAIMD_HEAL_BACKOFF: '0s',
    RECLAIMD_HEAL_MAX: '1000',
    RECLAIMD_MAX_RECOVERIES: '1000',
  };
  const environment = Object.entries(settings).map(([name, value]) => `Environment="${name}=${value}"\n`);
  const worker = JSON.stringify({ url, queues: ['work'], mode: 'forever' }).replaceAll('"', '\\"');
  await machine.writeUnits({
    'reclaimd.service': `[Service]\n${environment.join('')}ExecStart=${process.execPath} ${MAIN} run\n`,
    'worker.service': `[Service]\nExecStart=${process.execPath} ${WORKER} "${worker}"\nRestart=always\nRestartSec=100ms\n[Unit]\nStartLimitIntervalSec=0\n`,
    'app.service': '[Service]\nExecStart=/bin/sleep 600\n[Unit]\nStartLimitIntervalSec=0\n',
    'many@.service': '[Service]\nExecStart=/bin/sleep 600\n',
  });
  await machine.run('systemctl', ['start', 'reclaimd', 'worker']);
}

async function measureKills({ url, boss, database }: Bench, machine: Machine, rounds: number): Promise<number[]> {
  const requeues = await listenForRequeues(url);
  const times: number[] = [];
  const jobId = (await boss.send('work', {})) ?? '';
  for (let round = 0; round < rounds; round++) {
    await waitFor(
      'the worker to be at it, in sight',
      async () =>
        (
          await database.query(
            `SELECT FROM job j JOIN attempt a ON a.queue = j.name AND a.job_id = j.id AND a.retry_count = j.retry_count
             JOIN executor e ON e.application_name = a.application_name
             WHERE j.id = $1 AND j.state = 'active' AND e.unit IS NOT NULL AND e.proof IS NULL`,
            [jobId],
          )
        ).length > 0,
      60_000,
    );
    const requeued = requeues.next(jobId);
    const killedAt = performance.now();
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'worker']);
    times.push((await requeued) - killedAt);
  }
  await requeues.close();
  return times;
}

async function measureHeals({ database }: Bench, machine: Machine, rounds: number): Promise<number[]> {
  const times: number[] = [];
  await machine.run('systemctl', ['start', 'app']);
  const countHeals = async () => (await database.query(`SELECT FROM unit_action WHERE unit = 'app.service'`)).length;
  for (let round = 0; round < rounds; round++) {
    await waitFor('it to run', async () => (await machine.property('app', 'ActiveState')) === 'active');
    const before = await countHeals();
    const killedAt = performance.now();
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    await waitFor('the heal', async () => (await countHeals()) > before, 30_000);
    times.push(performance.now() - killedAt);
    await waitFor(
      'its end',
      async () => (await database.query(`SELECT FROM unit_action WHERE unit = 'app.service' AND outcome IS NULL`)).length === 0,
      30_000,
    );
  }
  return times;
}

/** They wait their turn, for so many are healed at once only; of those that run again meanwhile nothing is left to see. */
async function measureMassFailure({ database }: Bench, machine: Machine, count: number): Promise<void> {
  const units = Array.from({ length: count }, (_, index) => `many@${index}`);
  await machine.run('systemctl', ['start', ...units]);
  const killedAt = performance.now();
  await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', ...units]);
  const heals = `SELECT FROM unit_action WHERE unit LIKE 'many@%' AND outcome`;
  const seconds = () => ((performance.now() - killedAt) / 1000).toFixed(1);
  await waitFor('the first heal', async () => (await database.query(`${heals} = 'done'`)).length > 0);
  const first = seconds();
  await waitFor('every heal', async () => (await database.query(`${heals} = 'done'`)).length === count, 600_000);
  console.log(`  ${count} units killed at once: the first heal done after ${first} s, the last after ${seconds()} s`);
}

async function measureLook(machine: Machine, count: number): Promise<void> {
  await machine.run('systemctl', ['start', ...Array.from({ length: count }, (_, index) => `many@${index}`)]);
  const units = createUnitManager(machine.busAddress.replace('unix:path=', ''), {
    clock: systemClock,
    log: createLogger('silent', 'bench'),
  });
  try {
    const first = await cpuOf(() => units.list(['many@*']));
    const looks: number[] = [];
    for (let round = 0; round < 20; round++) looks.push((await cpuOf(() => units.list(['many@*']))).ms);
    console.log(
      `  ${first.result.length} units: the first look took ${first.ms.toFixed(0)} ms of CPU, each one after it one call and ${quantile(looks, 0.5).toFixed(1)} ms`,
    );
  } finally {
    units.close();
  }
}

async function cpuOf<Result>(work: () => Promise<Result>): Promise<{ ms: number; result: Result }> {
  const before = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(before);
  return { ms: (user + system) / 1000, result };
}

function report(what: string, times: readonly number[]): void {
  const [middle, p99, most] = [quantile(times, 0.5), quantile(times, 0.99), Math.max(...times)];
  console.log(`  ${what}: p50 ${middle.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms, max ${most.toFixed(0)} ms`);
}
