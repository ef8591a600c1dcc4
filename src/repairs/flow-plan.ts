import type { FlowStore, JobCopy, JobRef } from '../actions/flow-store.ts';
import type { JobRow, JobStore } from '../actions/job-store.ts';
import type { WorkflowChange, WorkflowDoor, WorkflowOrder } from '../actions/workflow-door.ts';
import type { Sql } from '../postgres/database.ts';
import type { JobName } from './facts.ts';
import { blockedWarning, copiesWarning, MOST_COPIES, nameCopies, retentionWarning, spell } from './job-plan.ts';
import { parseJobTarget } from './targets.ts';

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
  /** Of a parent that is tried again. */
  parent?: ParentBefore;
  warnings: string[];
}

/** What its next run rests on beside its state, and what the plan tells of. */
export interface ParentBefore {
  retryLimit: number;
  deadLetter: string | null;
  blocked: boolean;
  blocksKeyWhenFailed: boolean;
  /** What became of it after it failed. */
  copies: string | null;
  /** Everything behind it; null where that is more than one look takes in. */
  waiting: readonly string[] | null;
}

/** A flow that waits in vain; see workflows/find-stuck.ts. */
export interface FoundFlow {
  children: JobRef[];
  chain: JobRef[];
  /** There are more than the chain. */
  more: boolean;
}

export interface FlowRepairDependencies {
  jobs: JobStore;
  flows: FlowStore;
  flowDoor: WorkflowDoor;
  /** What waits in vain behind the job, or is the job itself; undefined where it is neither. */
  findStuck(sql: Sql, job: JobName): Promise<FoundFlow | undefined>;
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
    const [stuck] = await flows.listStuck(sql, [named], { ofEach: 1 });
    if (!row || !stuck) return { refusal: `${target} is ${row ? 'not waiting in vain' : 'gone'}: \`reclaimd workflows\` shows what is` };
    const warnings = ['it runs although what it waits for never completed: it must cope without', ...retentionWarning(row)];
    return { plan: { target, state: row.state, retryCount: row.retryCount, jobs: [target], children: [], after: 'free', warnings } };
  }
  const flow = await findStuck(sql, named);
  if (!flow) return { refusal: `nothing waits in vain for ${target}: \`reclaimd workflows\` shows what does` };
  const known = { target, state: row?.state ?? null, retryCount: row?.retryCount ?? null, children: flow.children };
  if (action === 'workflow_cancel_descendants') {
    if (flow.more)
      return {
        refusal: `more than ${flow.chain.length} jobs wait in vain there, too many for one repair: cancel behind its children one by one, or set the policy cancel-children`,
      };
    const jobNames = flow.chain.map(nameOf).sort();
    const behind = jobNames.filter((name) => name !== target).length;
    return {
      plan: {
        ...known,
        jobs: jobNames,
        after: 'cancelled',
        warnings: [`${waits(behind)} behind it, and ${behind === 1 ? 'ends' : 'end'} with this`],
      },
    };
  }
  if (row?.state !== 'failed' && row?.state !== 'cancelled')
    return {
      refusal: `${target} is ${row?.state ?? 'gone'}, so it cannot be tried again: workflow_cancel_descendants or workflow_unblock remain`,
    };
  if (row.placeTakenBy !== null)
    return { refusal: `${row.placeTakenBy} has the only place that its queue leaves for ${target}: try again when that one has moved on` };
  const copies = await flows.listCopies(sql, [named], MOST_COPIES);
  const warnings = [`${flow.more ? 'more than ' : ''}${waits(flow.chain.length)} behind it`, ...trapsOf(row, copies)];
  const after = row.state === 'failed' ? 'retry' : 'created';
  const { retryLimit, deadLetter, blocked, blocksKeyWhenFailed } = row;
  const waiting = flow.more ? null : flow.chain.map(nameOf).sort();
  const parent = { retryLimit, deadLetter, blocked, blocksKeyWhenFailed, copies: nameCopies(copies), waiting };
  return { plan: { ...known, jobs: [target], after, parent, warnings } };
}

const waits = (count: number) => `${count} ${count === 1 ? 'job waits' : 'jobs wait'}`;

/** Pure: pg-boss's own rules that a person should know before a parent is tried again. */
function trapsOf(row: JobRow, copies: readonly JobCopy[]): string[] {
  const warnings = [...copiesWarning(row, copies), ...blockedWarning(row), ...retentionWarning(row)];
  if (row.blocksKeyWhenFailed) warnings.push('its queue is key_strict_fifo: until it has completed, no other job of its key runs');
  return warnings;
}

/** Keeps everything that a plan rests on as it is until the transaction ends: the parents first, as the door does. */
export async function lockFlow({ flows }: FlowRepairDependencies, tx: Sql, named: JobName, { children, jobs }: FlowPlan): Promise<void> {
  await flows.lockEndedParents(tx, [named, ...children]);
  await flows.lock(
    tx,
    jobs.map((job) => parseJobTarget(job) as JobName),
  );
}

/** In what way the flow is not any more what was shown. */
export function flowDrift(planned: FlowPlan, now: FlowPlan): string | undefined {
  if (planned.state !== now.state) return `state was ${planned.state ?? 'gone'}, is ${now.state ?? 'gone'}`;
  if (planned.retryCount !== now.retryCount) return `attempt was ${planned.retryCount}, is ${now.retryCount}`;
  return (planned.parent && parentDrift(planned.parent, now.parent)) ?? jobsDrift(planned.jobs, now.jobs);
}

/** How a drift calls them. */
const NAMES: Record<Exclude<keyof ParentBefore, 'waiting'>, string> = {
  retryLimit: 'retry limit',
  deadLetter: 'dead letter queue',
  blocked: 'whether it is blocked',
  blocksKeyWhenFailed: 'key blocked by a failure',
  copies: 'what became of its copy',
};

function parentDrift(before: ParentBefore, now: ParentBefore | undefined): string | undefined {
  for (const [fact, name] of Object.entries(NAMES) as [keyof typeof NAMES, string][])
    if (before[fact] !== now?.[fact]) return `${name} was ${spell(before[fact])}, is ${spell(now?.[fact])}`;
  if (!before.waiting || !now?.waiting) return before.waiting === now?.waiting ? undefined : 'how many wait behind it has changed';
  return jobsDrift(before.waiting, now.waiting);
}

function jobsDrift(before: readonly string[], now: readonly string[]): string | undefined {
  const [shown, there] = [new Set(before), new Set(now)];
  const gone = before.filter((job) => !there.has(job));
  const added = now.filter((job) => !shown.has(job));
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
