import type { JobStore } from '../actions/job-store.ts';
import { type IncidentChanges, listOpenEvidence, resolve } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';

interface PoisonEvidence {
  queue: string;
  jobId: string;
  retryCount: number;
  outcome: string;
}

/**
 * A poison job's incident ends when somebody has moved the job on. The queue prunes its finished jobs after a while: a
 * job that was ended and is gone says nothing, and the incident waits until a person has acknowledged it.
 */
export async function resolveMovedPoison(sql: Sql, jobs: JobStore): Promise<IncidentChanges> {
  const open = await listOpenEvidence<PoisonEvidence>(sql, 'poison_job');
  if (open.length === 0) return resolve(sql, 'poison_job', []);
  const states = await jobs.readStates(
    sql,
    open.map(({ evidence }) => evidence),
  );
  const ended = open.filter(({ evidence, acknowledged }) => {
    const now = states.get(`${evidence.queue}/${evidence.jobId}`);
    const isHeld = evidence.outcome === 'held';
    if (!now) return isHeld || acknowledged;
    return now.state !== (isHeld ? 'active' : 'failed') || now.retryCount !== evidence.retryCount;
  });
  return resolve(sql, 'poison_job', ended);
}
