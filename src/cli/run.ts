import { createDaemon, type Daemon } from '../daemon.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLogger } from '../runtime/logger.ts';
import { createNotifier, type Notifier } from '../systemd/notify.ts';
import { requireConfig, type Surroundings } from './command.ts';
import { loadPolicyModule } from './policy-module.ts';
import { startDatabase } from './start-database.ts';

/** A daemon that cannot do its work yet (no database, no pg-boss) is up all the same, and says what it lacks. */
const READY_LIMIT_MS = 20_000;
const STATUS_INTERVAL_MS = 10_000;

/** `reclaimd run`: the daemon, until a signal. */
export async function run({ env, signal }: Surroundings): Promise<void> {
  const config = requireConfig(env);
  const resolvePolicy = await loadPolicyModule(config.policyModule);
  const notifier = createNotifier(env);
  await using server = await startDatabase(config);
  const log = createLogger(config.logLevel, config.node);
  if (server.urlFile) log.info({ DATABASE_URL_FILE: server.urlFile }, 'a private Postgres runs: commands take its URL from that file');
  const daemon = await createDaemon(config, { databaseUrl: server.url, resolvePolicy, log });
  if (notifier) await report(notifier, daemon, signal);
  await untilAborted(signal);
  await Promise.all([notifier?.stopping(), daemon.stop()]);
}

/** Tells the service manager that we are ready, and from then on that the loops turn: when they do not, it restarts us. */
async function report(notifier: Notifier, daemon: Daemon, signal: AbortSignal): Promise<void> {
  const over = new AbortController();
  const limit = systemClock.sleep(READY_LIMIT_MS, AbortSignal.any([over.signal, signal]));
  await Promise.race([daemon.firstPass, limit]);
  over.abort();
  if (signal.aborted) return;
  await notifier.ready(daemon.describe());
  const intervalMs = Math.min(STATUS_INTERVAL_MS, (notifier.watchdogMs ?? Number.POSITIVE_INFINITY) / 3);
  void keepTelling();

  async function keepTelling(): Promise<void> {
    while (!signal.aborted) {
      if (daemon.isAlive()) await notifier.alive(daemon.describe());
      await systemClock.sleep(intervalMs, signal);
    }
  }
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
