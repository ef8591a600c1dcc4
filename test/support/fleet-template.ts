import { randomBytes } from 'node:crypto';
import { PgBoss } from 'pg-boss';
import { createDatabase } from '../../src/postgres/database.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { createLogger } from '../../src/runtime/logger.ts';
import { administer } from './administer.ts';

/** A database with pg-boss's real schema and ours under their usual names, to be copied: a third of the cost of making both anew. */
export async function createFleetTemplate(serverUrl: string): Promise<string> {
  const name = `template_${randomBytes(6).toString('hex')}`;
  await administer(serverUrl, `CREATE DATABASE ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const boss = new PgBoss({ connectionString: url.href, supervise: false, schedule: false, registerInstance: false, max: 1 });
  await boss.start();
  await boss.stop({ graceful: false });
  const limits = { maxConnections: 1, statementTimeoutMs: 30_000, lockTimeoutMs: 30_000 };
  const database = createDatabase(
    { url: url.href, applicationName: 'test', searchPath: ['reclaimd', 'pgboss'], ...limits },
    { clock: systemClock, log: createLogger('silent', 'test') },
  );
  await migrate(database, 'reclaimd').finally(() => database.close());
  return name;
}
