import type { Config } from '../config.ts';
import { createDatabase } from '../postgres/database.ts';
import { startEmbeddedPostgres } from '../postgres/embedded.ts';
import { migrate } from '../postgres/migrate.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLogger } from '../runtime/logger.ts';

const EMBEDDED = 'embedded:';

/** The configured server; `embedded:DIR` starts one, with our schema in it, and stops it at disposal. */
export async function startDatabase(config: Config): Promise<{ url: string; urlFile?: string } & AsyncDisposable> {
  if (!config.databaseUrl.startsWith(EMBEDDED)) {
    return { url: config.databaseUrl, [Symbol.asyncDispose]: async () => undefined };
  }
  const server = await startEmbeddedPostgres(config.databaseUrl.slice(EMBEDDED.length));
  const database = createDatabase(
    {
      url: server.url,
      applicationName: 'reclaimd:migrate',
      searchPath: [config.schema],
      maxConnections: 1,
      statementTimeoutMs: 60_000,
      lockTimeoutMs: 10_000,
    },
    { clock: systemClock, log: createLogger('silent', config.node) },
  );
  try {
    await migrate(database, config.schema).finally(() => database.close());
  } catch (error) {
    // Nobody else has it yet, and a server that goes on keeps the process.
    await server.stop();
    throw error;
  }
  return { url: server.url, urlFile: server.urlFile, [Symbol.asyncDispose]: () => server.stop() };
}
