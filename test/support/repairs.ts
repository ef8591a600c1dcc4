import type { HostAuthorize } from '../../src/authorization/authorize.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Database, Sql } from '../../src/postgres/database.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair, type RepairPreview, type RepairRefused } from '../../src/repairs/preview.ts';
import { createFleetDatabase } from './database.ts';
import { createExecutor, openTestContext } from './executor.ts';

export const ANN = 'ann@desk';
export const REASON = 'the mail server is back';
export type FleetOptions = Parameters<typeof createFleetDatabase>[0];

/** A fleet with one executor, and what a person at a desk does to its jobs. */
export async function createDesk(options: FleetOptions = { queues: [{ name: 'mail' }] }, authorize?: HostAuthorize) {
  const fleet = await createFleetDatabase(options);
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const executor = await createExecutor(fleet.url, fleet.database, 'worker');
  const context = await openTestContext(fleet.url, {}, authorize ? { authorize } : {});
  const dependencies = context.repairDependencies();
  return {
    ...fleet,
    executor,
    dependencies,
    /** Jobs that `executor` is at. */
    begin: async (count = 1, queue = 'mail') => {
      await fleet.boss.insert(
        queue,
        Array.from({ length: count }, () => ({})),
      );
      return (await executor.fetch(queue, count)).map(({ id }) => id);
    },
    preview: (action: string, targets: string | string[], more: { policy?: string; actor?: string } = {}) =>
      previewRepair(dependencies, { action, targets: [targets].flat(), actor: ANN, ...more }),
    execute: (token: string | null, more: { reason?: string; actor?: string } = {}) =>
      executeRepair(dependencies, { token: token ?? '', actor: ANN, reason: REASON, ...more }),
    state: async (id: string, queue = 'mail') => (await fleet.boss.findJobs(queue, { id }))[0]?.state,
    audit: () =>
      fleet.database.query<{
        actor: string;
        action: string;
        target: string;
        outcome: string;
        reason: string;
        detail: Record<string, unknown>;
      }>('SELECT actor, action, target, outcome, reason, detail FROM audit ORDER BY seq'),
  };
}

export function previewed(result: RepairPreview | RepairRefused): RepairPreview & { token: string } {
  if (!result.done || result.token === null) throw new Error(JSON.stringify(result));
  return { ...result, token: result.token };
}

/** A database whose statements within a transaction break where the test says. */
export function failAt(database: Database, breaks: () => boolean): Database {
  return beforeStatements(database, async () => {
    if (breaks()) throw new Error('the line was cut');
  });
}

/** A database with something that happens before each statement of a transaction. */
export function beforeStatements(database: Database, happens: (text: string) => Promise<void>): Database {
  return {
    ...database,
    transaction: (work) =>
      database.transaction((tx) => {
        const watched: Sql = {
          query: async (text, values) => {
            await happens(text);
            return tx.query(text, values);
          },
          execute: async (text, values, name) => {
            await happens(text);
            return tx.execute(text, values, name);
          },
        };
        return work(watched);
      }),
  };
}
