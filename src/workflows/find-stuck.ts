import { createHash } from 'node:crypto';
import type { Descendant, FlowStore, JobRef, StuckChild, StuckReason, WalkPosition } from '../actions/flow-store.ts';
import type { Sql } from '../postgres/database.ts';

/** Blocked jobs that will never run by themselves, with what keeps them. */
export interface StuckFlow {
  /** `QUEUE/JOB-ID`, where one parent is to blame. */
  parent: string | null;
  /** Several, where all of them are gone and any may be the one; none, where it went with its record. */
  parents: JobRef[];
  /** Of the one parent, while it is there. */
  parentRetryCount: number | null;
  reason: StuckReason;
  deadLetter: string | null;
  since: string;
  /** Those that wait for the parents themselves. */
  children: JobRef[];
  /** They and everything behind them, as far as it was looked at. */
  chain: Descendant[];
  /** There is more behind them than a look takes in. */
  more: boolean;
}

export interface StuckLook {
  flows: StuckFlow[];
  /** False where there were more than one look takes in. */
  complete: boolean;
}

/** Of one statement. */
const PAGE = 5_000;
/** Of the children of one parent, and of the jobs behind them. */
export const MOST_OF_FLOW = 20_000;
/** Children that one look judges. */
const MOST_CHILDREN = 100_000;
const PARENTS_AT_ONCE = 1_000;
const FLOWS_AT_ONCE = 1_000;

export const FLOW_PREFIX = 'workflow_stuck:flow:';

export const nameOf = ({ queue, jobId }: JobRef) => `${queue}/${jobId}`;
const byName = (a: JobRef, b: JobRef) => (nameOf(a) < nameOf(b) ? -1 : 1);
const distinct = (jobs: readonly JobRef[]) => [...new Map(jobs.map((job) => [nameOf(job), job])).values()];

export interface Walk {
  /** Those of the jobs looked at that wait in vain. */
  found: StuckChild[];
  /** Where the next goes on; null: everything has been seen since `from`. */
  next: WalkPosition | null;
}

/** Looks at so many of the blocked jobs, in the order of queue, start and id, a page a statement. */
export async function walkBlocked(sql: Sql, flows: FlowStore, from: WalkPosition | null, most: number): Promise<Walk> {
  const found: StuckChild[] = [];
  let left = most;
  for (const place of await listPlaces(sql, flows, from)) {
    let after = from?.queue === place.queue && from.state === place.state ? from : null;
    for (;;) {
      const page = await flows.pageBlocked(sql, place, after, Math.min(PAGE, left));
      found.push(...(page.length === 0 ? [] : await flows.listStuck(sql, page)));
      const last = page.at(-1);
      if (!last) break;
      after = { ...last, state: place.state };
      left -= page.length;
      if (left <= 0) return { found, next: after };
      if (page.length < PAGE) break;
    }
  }
  return { found, next: null };
}

/** Queues with blocked jobs, from the position on. */
async function listPlaces(sql: Sql, flows: FlowStore, from: WalkPosition | null) {
  const places: Pick<WalkPosition, 'queue' | 'state'>[] = [];
  for (const queues of await flows.listLeaves(sql)) places.push(...(await flows.listWaiting(sql, queues)));
  const order = (a: (typeof places)[number], b: (typeof places)[number]) =>
    a.queue === b.queue ? (a.state < b.state ? -1 : Number(a.state > b.state)) : a.queue < b.queue ? -1 : 1;
  return places.sort(order).filter((place) => from === null || order(place, from) >= 0);
}

/** Everything that waits in vain now, from a walk over all of the blocked jobs. Reads only. */
export async function findStuckFlows(sql: Sql, flows: FlowStore): Promise<StuckLook> {
  const { found, next } = await walkBlocked(sql, flows, null, Number.MAX_SAFE_INTEGER);
  const { stuck, unseen } = await judge(sql, flows, parentsOf(found), found);
  await addChains(sql, flows, stuck);
  return { flows: stuck, complete: next === null && unseen.length === 0 && !stuck.some(({ more }) => more) };
}

/**
 * What waits in vain behind one parent, whatever else does; or, where the job is itself a child that does, it and what is
 * behind it. Reads only.
 */
export async function findStuckBehind(sql: Sql, flows: FlowStore, job: JobRef): Promise<StuckFlow | undefined> {
  const { stuck } = await judge(sql, flows, [job], [job]);
  const behind = stuck.filter(({ parents }) => parents.some((parent) => nameOf(parent) === nameOf(job)));
  const itself = stuck.filter(({ children }) => children.some((child) => nameOf(child) === nameOf(job)));
  const [first, ...others] = behind.length > 0 ? behind : itself.map((flow) => ({ ...flow, children: [job] }));
  if (!first) return undefined;
  const flow = { ...first, children: distinct([first, ...others].flatMap(({ children }) => children)).sort(byName) };
  await addChains(sql, flows, [flow]);
  return flow;
}

export const parentsOf = (children: readonly StuckChild[]): JobRef[] =>
  distinct(
    children.flatMap(({ parentQueue, parentId }) =>
      parentQueue !== null && parentId !== null ? [{ queue: parentQueue, jobId: parentId }] : [],
    ),
  );

/** Those of the children, and of all others that wait for the parents, that wait in vain; by what keeps them, without what is behind them. */
export async function judge(
  sql: Sql,
  flows: FlowStore,
  parents: readonly JobRef[],
  children: readonly JobRef[],
): Promise<{ stuck: StuckFlow[]; unseen: JobRef[] }> {
  const asked = new Map(children.map((child) => [nameOf(child), { queue: child.queue, jobId: child.jobId }]));
  let first = 0;
  for (; first < parents.length && asked.size < MOST_CHILDREN; first += PARENTS_AT_ONCE)
    for (const child of await flows.listChildren(sql, parents.slice(first, first + PARENTS_AT_ONCE), MOST_OF_FLOW + 1))
      asked.set(nameOf(child), child);
  const all = [...asked.values()];
  const found: StuckChild[] = [];
  for (let start = 0; start < all.length; start += PAGE) found.push(...(await flows.listStuck(sql, all.slice(start, start + PAGE))));
  return { stuck: group(found), unseen: parents.slice(first) };
}

/**
 * Pure: by each parent that failed or was cancelled; by all of those together that are gone, for which of them was resolved
 * before nobody can tell; by the queue of the children where nothing is known.
 */
export function group(found: readonly StuckChild[]): StuckFlow[] {
  const stuck = new Map<string, StuckFlow>();
  const put = (causes: readonly StuckChild[]) => {
    const [cause] = causes;
    if (!cause) return;
    const { reason, deadLetter, parentRetryCount } = cause;
    const parents = parentsOf(causes).sort(byName);
    const since = causes.map((one) => one.since).sort()[0] as string;
    const parent = parents.length === 1 ? nameOf(parents[0] as JobRef) : null;
    const flow: StuckFlow = { parent, parents, parentRetryCount, reason, deadLetter, since, children: [], chain: [], more: false };
    flow.children.push({ queue: cause.queue, jobId: cause.jobId });
    const key = fingerprintOf(flow);
    const same = stuck.get(key);
    if (!same) stuck.set(key, flow);
    else {
      same.children.push(...flow.children);
      if (since < same.since) same.since = since;
    }
  };
  for (const causes of Map.groupBy(found, nameOf).values()) {
    for (const cause of causes) if (cause.reason !== 'parent_gone') put([cause]);
    put(causes.filter(({ reason }) => reason === 'parent_gone'));
  }
  for (const { children } of stuck.values()) children.sort(byName);
  return [...stuck.values()];
}

/** Names the trouble: one parent is its own name, several are a digest of theirs. */
export function fingerprintOf({ parent, parents, children }: Pick<StuckFlow, 'parent' | 'parents' | 'children'>): string {
  if (parent !== null) return `${FLOW_PREFIX}${parent}`;
  if (parents.length === 0) return `${FLOW_PREFIX}of ${children[0]?.queue}`;
  return `${FLOW_PREFIX}several ${createHash('sha256').update(parents.map(nameOf).join(' ')).digest('hex').slice(0, 32)}`;
}

/** What waits behind each; where there is too much for one statement, in halves. */
export async function addChains(sql: Sql, flows: FlowStore, stuck: readonly StuckFlow[]): Promise<void> {
  for (let first = 0; first < stuck.length; first += FLOWS_AT_ONCE)
    await addChainsTo(sql, flows, stuck.slice(first, first + FLOWS_AT_ONCE));
}

async function addChainsTo(sql: Sql, flows: FlowStore, stuck: readonly StuckFlow[]): Promise<void> {
  const roots = stuck.flatMap((flow, root) => flow.children.map((child) => ({ ...child, root })));
  const chains = await flows.listDescendants(sql, roots, MOST_OF_FLOW + 1);
  if (chains.length > MOST_OF_FLOW && stuck.length > 1) {
    const half = Math.ceil(stuck.length / 2);
    for (const part of [stuck.slice(0, half), stuck.slice(half)]) await addChainsTo(sql, flows, part);
    return;
  }
  const byRoot = Map.groupBy(chains.slice(0, MOST_OF_FLOW), ({ root }) => root);
  for (const [root, flow] of stuck.entries()) {
    flow.chain = (byRoot.get(root) ?? []).sort(byName);
    flow.more = chains.length > MOST_OF_FLOW;
  }
}
