import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';
import { installOwnership } from '../src/ownership/install.ts';
import { type Bench, TARGET, withServer } from './support.ts';

const MAIN = fileURLToPath(new URL('../dist/main.js', import.meta.url));
const EXECUTORS = 50;
const TICKS_PER_SECOND = 100;

function spawnDaemon(url: string, node: string) {
  return spawn(process.execPath, [MAIN, 'run'], {
    env: { ...process.env, DATABASE_URL: url, RECLAIMD_NODE: node, RECLAIMD_LISTEN: 'off', RECLAIMD_LOG_LEVEL: 'error' },
    stdio: 'inherit',
  });
}

function readProcess(pid: number): { cpuSeconds: number; megabytes: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND, megabytes: Number(rss) / 1024 };
}

async function countStatements({ database }: Bench): Promise<number> {
  const [row] = await database.query<{ calls: number }>('SELECT coalesce(sum(calls), 0)::float8 AS calls FROM pg_stat_statements');
  return row?.calls ?? 0;
}

/** Every daemon is a process of its own on this one host; each holds all executors in sight, so this is the worst case. */
export async function benchIdle(quick: boolean): Promise<void> {
  const seconds = quick ? 10 : 30;
  console.log(`an idle daemon with ${EXECUTORS} live executors, over ${seconds} s`);
  await withServer(quick, async (bench) => {
    const { database, url } = bench;
    await database.query('CREATE EXTENSION pg_stat_statements');
    await bench.boss.createQueue('work');
    await installOwnership(database, TARGET);
    const sleepers = Array.from({ length: EXECUTORS }, () => spawn('sleep', ['3600']));
    const beat = () =>
      database.query('SELECT count(heartbeat($1 || pid, $1 || pid, 5, host => $2, pid => pid)) FROM unnest($3::int[]) AS pid', [
        'idle-',
        hostname(),
        sleepers.map(({ pid }) => pid),
      ]);
    await beat();
    const beating = setInterval(() => void beat(), 2_000);
    let first: number | undefined;
    const daemons: ReturnType<typeof spawnDaemon>[] = [];
    for (const count of quick ? [1, 5] : [1, 10, 50]) {
      while (daemons.length < count) daemons.push(spawnDaemon(url, `node-${daemons.length}`));
      await new Promise((resolve) => setTimeout(resolve, 5_000 + count * 600));
      const pids = daemons.map(({ pid }) => pid ?? 0);
      const before = { statements: await countStatements(bench), cpu: pids.map((pid) => readProcess(pid).cpuSeconds) };
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      const after = pids.map(readProcess);
      const statements = ((await countStatements(bench)) - before.statements) / seconds / count;
      const cpu = after.reduce((sum, { cpuSeconds }, index) => sum + cpuSeconds - (before.cpu[index] ?? 0), 0) / seconds / count;
      first ??= statements;
      console.log(
        `  ${String(count).padStart(2)} daemons: a node does ${statements.toFixed(1)} statements/s (${(statements / first).toFixed(2)} of one alone), ${(100 * cpu).toFixed(1)} % of a core, ${(after.reduce((sum, { megabytes }) => sum + megabytes, 0) / count).toFixed(0)} MB`,
      );
    }
    clearInterval(beating);
    for (const child of [...daemons, ...sleepers]) child.kill('SIGTERM');
    await Promise.all(daemons.map((daemon) => new Promise((resolve) => daemon.once('exit', resolve))));
  });
}
