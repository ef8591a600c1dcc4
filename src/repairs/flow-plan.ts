import type { FlowStore, JobRef, StuckReason } from '../actions/flow-store.ts';
import type { JobStore } from '../actions/job-store.ts';
import type { WorkflowChange, WorkflowDoor, WorkflowOrder } from '../actions/workflow-door.ts';
import type { Sql } from '../postgres/database.ts';
import type { JobName } from './facts.ts';

export const FLOW_ACTIONS = ['workflow_retry_parent', 'workflow_cancel_descendants', 'workflow_unblock'] as const;
export type FlowAction = (typeof FLOW_ACTIONS)[number];

export interface FlowPlan {
  target: string;
  /** The parent or the child that is asked for; a parent that is gone has neither. */
  state: string | null;
  retryCount: number | null;
  /** The jobs that will be changed, as `QUEUE/JOB-ID`. */
  jobs: string[];
  children: JobRef[];
  after: string;
  warnings: string[];
}

/** A flow that waits in vain; see workflows/stuck-flows.ts. */
export interface FoundFlow {
  parent: string | null;
  reason: StuckReason;
  children: JobRef[];
  chain: JobRef[];
}

export interface FlowRepairDependencies {
  jobs: JobStore;
  flows: FlowStore;
  flowDoor: WorkflowDoor;
  /** Every flow that waits in vain now. */
  findStuck(sql: Sql): Promise<{ flows: FoundFlow[] }>;
}

const nameOf = ({ queue, jobId }: JobRef) => `${queue}/${jobId}`;

/** What a repair of a flow would change, or why it cannot; reads only. */
export async function planFlow(
  { jobs, flows, findStuck }: FlowRepairDependencies,
  sql: Sql,
  action: FlowAction,
  named: JobName,
): Promise<{ plan: FlowPlan } | { refusal: string }> {
  const target = nameOf(named);
  const [row] = await jobs.readJobs(sql, [named], { lock: false });
  if (action === 'workflow_unblock') {
    const [stuck] = await flows.listStuck(sql, [named.queue], 1, [named.jobId]);
    if (!row || !stuck) return { refusal: `${target} is ${row ? 'not waiting in vain' : 'gone'}: \`reclaimd workflows\` shows what is` };
    const warnings = ['it runs although what it waits for never completed: it must cope without'];
    return { plan: { target, state: row.state, retryCount: row.retryCount, jobs: [target], children: [], after: 'free', warnings } };
  }
  const flow = (await findStuck(sql)).flows.find(({ parent }) => parent === target);
  if (!flow) return { refusal: `nothing waits in vain for ${target}: \`reclaimd workflows\` shows what does` };
  const waiting = `${flow.chain.length} ${flow.chain.length === 1 ? 'job waits' : 'jobs wait'} behind it`;
  const known = { target, state: row?.state ?? null, retryCount: row?.retryCount ?? null, children: flow.children };
  if (action === 'workflow_cancel_descendants')
    return { plan: { ...known, jobs: flow.chain.map(nameOf).sort(), after: 'cancelled', warnings: [`${waiting}, and ends with this`] } };
  if (row?.state !== 'failed' && row?.state !== 'cancelled')
    return {
      refusal: `${target} is ${row?.state ?? 'gone'}, so it cannot be tried again: workflow_cancel_descendants or workflow_unblock remain`,
    };
  if (row.placeTakenBy !== null)
    return { refusal: `${row.placeTakenBy} has the only place that its queue leaves for ${target}: try again when that one has moved on` };
  return { plan: { ...known, jobs: [target], after: row.state === 'failed' ? 'retry' : 'created', warnings: [waiting] } };
}

/** In what way the flow is not any more what was shown. */
export function flowDrift(planned: FlowPlan, now: FlowPlan): string | undefined {
  if (planned.state !== now.state) return `state was ${planned.state ?? 'gone'}, is ${now.state ?? 'gone'}`;
  if (planned.retryCount !== now.retryCount) return `attempt was ${planned.retryCount}, is ${now.retryCount}`;
  const gone = planned.jobs.filter((job) => !now.jobs.includes(job));
  const added = now.jobs.filter((job) => !planned.jobs.includes(job));
  if (gone.length + added.length === 0) return undefined;
  return `the jobs behind it have changed: ${gone.length} gone, ${added.length} new`;
}

export function applyFlow(
  { flowDoor }: FlowRepairDependencies,
  tx: Sql,
  action: FlowAction,
  named: JobName,
  { target, state, retryCount, children }: FlowPlan,
  order: WorkflowOrder,
): Promise<WorkflowChange> {
  if (action === 'workflow_cancel_descendants') return flowDoor.cancelDescendants(tx, order, target, children);
  if (action === 'workflow_unblock') return flowDoor.unblockChild(tx, order, { ...named, retryCount: retryCount ?? 0 });
  return flowDoor.retryParent(tx, order, { ...named, retryCount: retryCount ?? 0, state: state === 'cancelled' ? 'cancelled' : 'failed' });
}
