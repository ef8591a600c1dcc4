import type { PgBoss } from 'pg-boss';
import { listOverdue, listQueueSettings, readMonitorInterval, readMonitoring } from './supervision-queries.ts';

/** pg-boss's supervision. Indexes are not rebuilt: that is DDL, and its owner's. */
export function createSupervisionStore(boss: () => PgBoss) {
  return {
    listOverdue,
    readMonitoring,
    listQueueSettings,
    readMonitorInterval,
    supervise: () => boss().supervise(undefined, { reindex: false }),
  };
}
