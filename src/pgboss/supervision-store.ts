import type { PgBoss } from 'pg-boss';
import { listOverdue, listQueueSettings, readMonitoring, readPace } from './supervision-queries.ts';

/** pg-boss's supervision. Indexes are not rebuilt: that is DDL, and its owner's. */
export function createSupervisionStore(boss: () => PgBoss) {
  return {
    listOverdue,
    readMonitoring,
    listQueueSettings,
    readPace,
    supervise: () => boss().supervise(undefined, { reindex: false }),
  };
}
