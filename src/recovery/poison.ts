import type { FlowStore } from '../actions/flow-store.ts';
import type { JobStore } from '../actions/job-store.ts';
import { type IncidentChanges, listOpenEvidence, resolve } from '../incidents/incident.ts';
import type { Sql } from '../postgres/database.ts';

interface PoisonEvidence {
  queue: string;
  jobId: string;
  retryCount: number;
  outcome: string;
}

/** The newest: of those that came after a job's end. */
const MOST_COPIES = 10;

/**
 * A poison job's incident ends when somebody has moved the job on, or has redriven its dead letter copy. The queue prunes its
 * finished jobs after a while: a job that was ended and is gone says nothing, and whether a copy that was completed by the dead
 * letter queue's own workers was mended there they alone know: then the incident waits until a person has acknowledged it.
 */
export async function resolveMovedPoison(sql: Sql, jobs: JobStore, flows: Pick<FlowStore, 'listCopies'>): Promise<IncidentChanges> {
  const open = await listOpenEvidence<PoisonEvidence>(sql, 'poison_job');
  if (open.length === 0) return resolve(sql, 'poison_job', []);
  const states = await jobs.readStates(
    sql,
    open.map(({ evidence }) => evidence),
  );
  const lying = open.filter(({ evidence }) => evidence.outcome !== 'held' && states.has(nameOf(evidence)));
  const copies = await flows.listCopies(
    sql,
    lying.map(({ evidence }) => evidence),
    MOST_COPIES,
  );
  const copiesOf = Map.groupBy(
    copies.filter(({ ofLastEnd }) => ofLastEnd),
    ({ of }) => of,
  );
  const ended = open.filter(({ evidence, acknowledged }) => {
    const now = states.get(nameOf(evidence));
    const isHeld = evidence.outcome === 'held';
    if (!now) return isHeld || acknowledged;
    if (now.state !== (isHeld ? 'active' : 'failed') || now.retryCount !== evidence.retryCount) return true;
    return (copiesOf.get(nameOf(evidence)) ?? []).some(({ redriven, state }) => redriven || (acknowledged && state === 'completed'));
  });
  return resolve(sql, 'poison_job', ended);
}

const nameOf = ({ queue, jobId }: PoisonEvidence) => `${queue}/${jobId}`;
