import { createDaemon } from '../daemon.ts';
import { systemClock } from '../runtime/clock.ts';
import { createNotifier } from '../systemd/notify.ts';
import { requireConfig, type Surroundings } from './command.ts';
import { loadPolicyModule } from './policy-module.ts';
import { report } from './report.ts';
import { startDatabase } from './start-database.ts';

/** `reclaimd run`: the daemon, until a signal. */
export async function run({ env, out, signal }: Surroundings): Promise<void> {
  const config = requireConfig(env);
  const resolvePolicy = await loadPolicyModule(config.policyModule);
  const notifier = createNotifier(env);
  await using server = await startDatabase(config);
  if (server.embedded) out(`private Postgres: ${server.url}`);
  const daemon = await createDaemon(config, { databaseUrl: server.url, resolvePolicy });
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
