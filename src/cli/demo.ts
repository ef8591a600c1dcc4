import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '../config.ts';
import { createDaemon } from '../daemon.ts';
import { Interrupted } from '../demo/interrupted.ts';
import { type Balance, createEffectTable, readBalance } from '../demo/queries.ts';
import { crashed, frozen, killed, type SceneResult, type Stage, stopped, until } from '../demo/scenes.ts';
import { createWorkers } from '../demo/workers.ts';
import { installOwnership } from '../ownership/install.ts';
import { installPgBossSchema } from '../pgboss/install.ts';
import { createDatabase } from '../postgres/database.ts';
import { startEmbeddedPostgres } from '../postgres/embedded.ts';
import { migrate } from '../postgres/migrate.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLogger } from '../runtime/logger.ts';
import { EXIT, type Surroundings } from './command.ts';
import { paint, printJson, table } from './output.ts';

const QUEUE = 'orders';
const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };
const WORKERS = 3;
const JOB_MS = 1_500;
const JOBS_A_SCENE = 16;

export interface DemoOptions {
  once?: true;
  json?: true;
}

/**
 * Everything for real: a private Postgres, two daemons, worker processes that get killed, crashed, frozen and stopped.
 * @returns 0 only if every job was done exactly once.
 */
export async function demo(surroundings: Surroundings, options: DemoOptions): Promise<number> {
  const startedAt = performance.now();
  const say: Stage['say'] = (who, text, tone) => {
    if (options.json) return;
    const at = `${((performance.now() - startedAt) / 1000).toFixed(1)}s`.padStart(7);
    const colour = { good: 'green', bad: 'red', quiet: 'dim' } as const;
    surroundings.out(`${paint(at, 'dim')}  ${who.padEnd(9)}  ${tone ? paint(text, colour[tone]) : text}`);
  };

  await using cleanup = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-demo-'));
  cleanup.defer(() => rm(directory, { recursive: true, force: true }));
  const server = await startEmbeddedPostgres(directory);
  cleanup.defer(() => server.stop());
  say('postgres', 'a private server is up');

  const log = createLogger('silent', 'demo');
  const database = createDatabase(
    {
      url: server.url,
      applicationName: 'demo',
      searchPath: ['reclaimd', 'pgboss'],
      maxConnections: 3,
      statementTimeoutMs: 30_000,
      lockTimeoutMs: 5_000,
    },
    { clock: systemClock, log },
  );
  cleanup.defer(() => database.close());
  const boss = await installPgBossSchema(server.url);
  cleanup.defer(() => boss.stop({ graceful: false }));
  await boss.createQueue(QUEUE, { retryLimit: 3 });
  await createEffectTable(database);
  await migrate(database, TARGET.schema);
  await installOwnership(database, TARGET);

  for (const node of ['node-a', 'node-b']) {
    const daemon = await createDaemon(demoConfig(server.url, node), { log });
    cleanup.defer(() => daemon.stop());
    say(node, `a daemon runs, metrics at ${daemon.url}/metrics`);
  }
  const workers = createWorkers({ url: server.url, queue: QUEUE, jobMs: JOB_MS, signal: surroundings.signal });
  cleanup.defer(() => workers.killAll());

  const stage: Stage = { database, boss, queue: QUEUE, workers, say, signal: surroundings.signal };
  const results: SceneResult[] = [];
  try {
    for (let index = 0; index < WORKERS; index++) {
      const { name, pid } = await workers.start();
      say(name, `an unmodified pg-boss worker, pid ${pid}`);
    }
    do {
      for (const scene of [killed, crashed, stopped, frozen, killed]) {
        await boss.insert(
          QUEUE,
          Array.from({ length: JOBS_A_SCENE }, () => ({ data: {} })),
        );
        results.push(await scene(stage));
      }
    } while (!options.once);
    say('demo', 'waiting for the last jobs', 'quiet');
    await until(stage, 'the last jobs', async () => (await readBalance(database, QUEUE)).unfinished === 0);
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error;
    say('demo', 'interrupted: stopping everything', 'quiet');
    return EXIT.done;
  }
  return conclude(surroundings, options, results, await readBalance(database, QUEUE));
}

function demoConfig(url: string, node: string) {
  const loaded = loadConfig({
    DATABASE_URL: url,
    RECLAIMD_NODE: node,
    RECLAIMD_LISTEN: '127.0.0.1:0',
    RECLAIMD_SWEEP_INTERVAL: '1s',
    // Its workers are its own children, in a container too.
    RECLAIMD_PROCESSES: 'on',
  });
  if ('problems' in loaded) throw new Error(JSON.stringify(loaded.problems));
  return loaded.config;
}

function conclude(surroundings: Surroundings, options: DemoOptions, scenes: readonly SceneResult[], balance: Balance): number {
  const exactlyOnce = balance.completed === balance.jobs && balance.doubled === 0 && balance.withoutEffect === 0;
  const ok = exactlyOnce && scenes.every(({ kept }) => kept);
  if (options.json) printJson(surroundings, { ok, scenes, balance });
  else {
    surroundings.out('');
    surroundings.out(
      table(
        ['WORKER', 'WAS', 'JOBS IN HAND', 'GIVEN BACK', 'AFTER', 'AS PROMISED'],
        scenes.map(({ worker, scene, jobs, recovered, seconds, kept }) => [
          worker,
          scene,
          String(jobs),
          String(recovered),
          seconds === null ? '-' : `${Math.round(seconds * 1000)} ms`,
          kept ? 'yes' : 'NO',
        ]),
      ),
    );
    surroundings.out('');
    surroundings.out(
      `${balance.jobs} jobs: ${balance.completed} done, ${balance.failed} failed, ${balance.doubled} done twice, ${balance.unfinished} unfinished`,
    );
    surroundings.out(ok ? paint('every job was done exactly once', 'green') : paint('a promise was broken', 'red'));
  }
  return ok ? EXIT.done : EXIT.failed;
}
