import { PgBoss } from 'pg-boss';

/** Installs pg-boss as an application would; only for the demo, whose database is its own. Never an operator's. */
export async function installPgBossSchema(url: string): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false, registerInstance: false, max: 2 });
  boss.on('error', () => undefined);
  await boss.start();
  return boss;
}
