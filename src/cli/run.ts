import { createDaemon } from '../daemon.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLogger } from '../runtime/logger.ts';
import { createNotifier } from '../systemd/notify.ts';
import { requireConfig, type Surroundings } from './command.ts';
import { loadPolicyModule } from './policy-module.ts';
import { report } from './report.ts';
import { startDatabase } from './start-database.ts';

/** `reclaimd run`: the daemon, until a signal. */
export async function run({ env, signal }: Surroundings): Promise<void> {
  const config = requireConfig(env);
  const resolvePolicy = await loadPolicyModule(config.policyModule);
  const notifier = createNotifier(env);
  await using server = await startDatabase(config);
  const log = createLogger(config.logLevel, config.node);
  if (server.urlFile) log.info({ DATABASE_URL_FILE: server.urlFile }, 'a private Postgres runs: commands take its URL from that file');
  const daemon = await createDaemon(config, { databaseUrl: server.url, resolvePolicy, log });
  const reporting = notifier && report(notifier, daemon, systemClock, signal);
  await untilAborted(signal);
  await Promise.all([reporting, notifier?.stopping(), daemon.stop()]);
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
