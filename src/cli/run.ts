import { createDaemon } from '../daemon.ts';
import { requireConfig, type Surroundings } from './command.ts';
import { loadPolicyModule } from './policy-module.ts';
import { startDatabase } from './start-database.ts';

/** `reclaimd run`: the daemon, until a signal. */
export async function run(surroundings: Surroundings): Promise<void> {
  const config = requireConfig(surroundings.env);
  const resolvePolicy = await loadPolicyModule(config.policyModule);
  await using server = await startDatabase(config);
  if (server.embedded) surroundings.out(`private Postgres: ${server.url}`);
  const daemon = await createDaemon(config, { databaseUrl: server.url, resolvePolicy });
  await new Promise<void>((resolve) => {
    if (surroundings.signal.aborted) resolve();
    else surroundings.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await daemon.stop();
}
