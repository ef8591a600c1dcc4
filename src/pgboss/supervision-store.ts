import type { PgBoss } from 'pg-boss';
import type { StatementGuard } from './statement-guard.ts';
import { listExpired, listExpiring, listOverdue, listQueueSettings, readMonitoring, readPace } from './supervision-queries.ts';

/** pg-boss's supervision. Indexes are not rebuilt: that is DDL, and its owner's. */
export function createSupervisionStore(boss: () => PgBoss, guard: StatementGuard) {
  return {
    listOverdue,
    listExpiring,
    listExpired,
    readMonitoring,
    listQueueSettings,
    readPace,
    supervise: (mayGoOn: () => Promise<void>) => guard.during(mayGoOn, () => boss().supervise(undefined, { reindex: false })),
  };
}
