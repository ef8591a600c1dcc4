import { randomBytes } from 'node:crypto';
import { PgBoss, type Queue } from 'pg-boss';
import { inject, onTestFinished } from 'vitest';
import { catalogName } from '../../src/pgboss/schema-name.ts';
import { createDatabase, type Database, type DatabaseOptions } from '../../src/postgres/database.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { createLogger } from '../../src/runtime/logger.ts';
import { administer } from './administer.ts';

export const silentLog = createLogger('silent', 'test');

export interface TestDatabase {
  url: string;
  /** A pool of ours on it; closed at the end of the test. */
  connect(options?: {
    schema?: string;
    pgbossSchema?: string;
    statementTimeoutMs?: number;
    lockTimeoutMs?: number;
    url?: string;
  }): Database;
}

/** A pool of ours on any server; closed at the end of the test. */
export function openDatabase(url: string, options: Partial<Omit<DatabaseOptions, 'url' | 'applicationName'>> = {}): Database {
  const limits = { maxConnections: 3, statementTimeoutMs: 5_000, lockTimeoutMs: 5_000 };
  const database = createDatabase(
    { url, applicationName: 'test', searchPath: ['reclaimd', 'pgboss'], ...limits, ...options },
    { clock: systemClock, log: silentLog },
  );
  onTestFinished(() => database.close());
  return database;
}

/** A database of its own for one test, dropped at its end; a copy of that one, else an empty one. */
export async function createTestDatabase(template = 'template1'): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  const server = inject('databaseUrl');
  await administer(server, `CREATE DATABASE ${name} TEMPLATE ${template}`);
  const url = new URL(server);
  url.pathname = `/${name}`;
  // Hooks run last to first, so connections opened later are closed before the drop.
  onTestFinished(() => administer(server, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  return {
    url: url.href,
    connect: (options = {}) => {
      const { schema = 'reclaimd', pgbossSchema = 'pgboss', statementTimeoutMs = 30_000, lockTimeoutMs = 10_000 } = options;
      const searchPath = [schema, catalogName(pgbossSchema)];
      return openDatabase(options.url ?? url.href, { searchPath, maxConnections: 5, statementTimeoutMs, lockTimeoutMs });
    },
  };
}

export interface BossOptions {
  schema?: string;
  queues?: (Omit<Queue, 'name'> & { name: string })[];
}

/** Installs pg-boss's real schema with the queues, and returns a client that sends and reads. */
export async function installPgBoss(url: string, { schema = 'pgboss', queues = [] }: BossOptions = {}): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: url, schema, supervise: false, schedule: false, registerInstance: false, max: 3 });
  boss.on('error', () => undefined);
  await boss.start();
  for (const queue of queues) await boss.createQueue(queue.name, queue);
  onTestFinished(() => boss.stop({ graceful: false }));
  return boss;
}

/** Database, pg-boss and our schema, ready for use. */
export async function createFleetDatabase(options: BossOptions & { reclaimdSchema?: string } = {}) {
  const names = { schema: options.reclaimdSchema ?? 'reclaimd', pgbossSchema: options.schema ?? 'pgboss' };
  const isUsual = names.schema === 'reclaimd' && names.pgbossSchema === 'pgboss';
  const test = await createTestDatabase(isUsual ? inject('fleetTemplate') : undefined);
  const boss = await installPgBoss(test.url, options);
  const database = test.connect(names);
  if (isUsual) await database.query('UPDATE fleet SET id = gen_random_uuid()');
  else await migrate(database, names.schema);
  return { ...test, boss, database };
}
