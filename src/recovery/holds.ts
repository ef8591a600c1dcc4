import type { JobStore } from '../actions/job-store.ts';
import { listOpenEvidence, resolveGone } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';

interface HeldEvidence {
  queue: string;
  jobId: string;
  retryCount: number;
}

/** A held orphan's incident ends when its attempt does: somebody completed, failed or deleted it. */
export async function resolveReleasedHolds(sql: Sql, jobs: JobStore): Promise<void> {
  const open = await listOpenEvidence<HeldEvidence>(sql, 'held_orphan');
  if (open.length === 0) return;
  const active = await jobs.listStillActive(
    sql,
    open.map(({ evidence }) => evidence),
  );
  const still = open.filter(({ evidence }) => active.has(evidence.jobId)).map(({ fingerprint }) => fingerprint);
  if (still.length < open.length) await resolveGone(sql, 'held_orphan', still);
}
