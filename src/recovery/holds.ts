import { type JobStore, nameAttempt } from '../actions/job-store.ts';
import { type IncidentChanges, listOpenEvidence, resolve } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';

interface HeldEvidence {
  queue: string;
  jobId: string;
  retryCount: number;
}

/**
 * A held orphan's incident ends when its attempt does: somebody completed, failed or deleted it. No queue prunes active
 * jobs, so one that is gone was deleted by somebody.
 */
export async function resolveReleasedHolds(sql: Sql, jobs: JobStore): Promise<IncidentChanges> {
  const open = await listOpenEvidence<HeldEvidence>(sql, 'held_orphan');
  const active =
    open.length === 0
      ? new Set<string>()
      : await jobs.listStillActive(
          sql,
          open.map(({ evidence }) => evidence),
        );
  const released = open.filter(({ evidence }) => !active.has(nameAttempt(evidence)));
  return resolve(sql, 'held_orphan', released);
}
