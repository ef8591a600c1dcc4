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
/** What the walk notes of the parents of one job: the others come to light with the job. */
const PARENTS_OF_EACH = 10;
/** Jobs that wait in vain, each with one of its parents, that one statement gives. */
const MOST_ROWS = 20_000;
/** Those that one look takes in: a flow in which each job waits for each of many has a great many. */
const MOST_PAIRS = 1_000_000;
/** Of the children of one parent, and of the jobs behind them. */
const MOST_OF_FLOW = 20_000;
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
  children: JobRef[];
  /** What they wait for, as far as it is known, and the first few of each. */
  parents: JobRef[];
  /** Where the next goes on; null: everything has been seen since `from`. */
  next: WalkPosition | null;
}

/** Looks at so many of the blocked jobs, in the order of queue, start and id, a page a statement. */
export async function walkBlocked(sql: Sql, flows: FlowStore, from: WalkPosition | null, most: number): Promise<Walk> {
  const children = new Map<string, JobRef>();
  const parents = new Map<string, JobRef>();
  const upTo = (next: WalkPosition | null): Walk => ({ children: [...children.values()], parents: [...parents.values()], next });
  let left = most;
  for (const place of await listPlaces(sql, flows, from)) {
    let after = from?.queue === place.queue && from.state === place.state ? from : null;
    for (;;) {
      const page = await flows.pageBlocked(sql, place, after, Math.min(PAGE, left));
      const found = page.length === 0 ? [] : await flows.listStuck(sql, page, { ofEach: PARENTS_OF_EACH });
      for (const { queue, jobId } of found) children.set(nameOf({ queue, jobId }), { queue, jobId });
      for (const parent of parentsOf(found)) parents.set(nameOf(parent), parent);
      const last = page.at(-1);
      if (!last) break;
      after = { ...last, state: place.state };
      left -= page.length;
      if (left <= 0) return upTo(after);
      if (page.length < PAGE) break;
    }
  }
  return upTo(null);
}

/** Those of the jobs that wait in vain, part by part; all that keeps one of them is in one part. */
async function* stuckAmong(sql: Sql, flows: FlowStore, jobs: readonly JobRef[]): AsyncGenerator<StuckChild[]> {
  let size = PAGE;
  for (let first = 0; first < jobs.length; ) {
    const part = jobs.slice(first, first + size);
    const found = await flows.listStuck(sql, part, part.length > 1 ? { inAll: MOST_ROWS + 1 } : {});
    if (found.length > MOST_ROWS && part.length > 1) size = Math.ceil(part.length / 2);
    else {
      yield found;
      first += part.length;
      if (found.length <= MOST_ROWS / 2) size = Math.min(PAGE, size * 2);
    }
  }
}

/** Queues with blocked jobs, from the position on. */
async function listPlaces(sql: Sql, flows: FlowStore, from: WalkPosition | null) {
  const places: Pick<WalkPosition, 'queue' | 'state'>[] = [];
  for (const queues of await flows.listLeaves(sql)) for (const place of await flows.listWaiting(sql, queues)) places.push(place);
  const order = (a: (typeof places)[number], b: (typeof places)[number]) =>
    a.queue === b.queue ? (a.state < b.state ? -1 : Number(a.state > b.state)) : a.queue < b.queue ? -1 : 1;
  return places.sort(order).filter((place) => from === null || order(place, from) >= 0);
}

/** Everything that waits in vain now, from a walk over all of the blocked jobs. Reads only. */
export async function findStuckFlows(sql: Sql, flows: FlowStore): Promise<StuckLook> {
  const { children, parents } = await walkBlocked(sql, flows, null, Number.MAX_SAFE_INTEGER);
  const { stuck, unseen } = await judge(sql, flows, parents, children);
  await addChains(sql, flows, stuck);
  return { flows: stuck, complete: unseen.length === 0 && !stuck.some(({ more }) => more) };
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

const parentsOf = (children: readonly StuckChild[]): JobRef[] =>
  distinct(
    children.flatMap(({ parentQueue, parentId }) =>
      parentQueue !== null && parentId !== null ? [{ queue: parentQueue, jobId: parentId }] : [],
    ),
  );

/**
 * Those of the children, and of all others that wait for the parents, that wait in vain; by what keeps them, without what is
 * behind them. @returns `unseen`: parents of which the look did not take in all children.
 */
export async function judge(
  sql: Sql,
  flows: FlowStore,
  parents: readonly JobRef[],
  children: readonly JobRef[],
): Promise<{ stuck: StuckFlow[]; unseen: JobRef[] }> {
  const judged = new Set<string>();
  const stuck = new Map<string, StuckFlow>();
  let room = MOST_PAIRS;
  const look = async (jobs: readonly JobRef[]) => {
    const others = jobs.filter((job) => !judged.has(nameOf(job)));
    for await (const found of stuckAmong(sql, flows, others)) {
      addTo(stuck, found);
      room -= found.length;
      if (room < 0) return;
    }
    for (const job of others) judged.add(nameOf(job));
  };
  let seen = 0;
  while (seen < parents.length && judged.size < MOST_CHILDREN) {
    await look(await flows.listChildren(sql, parents.slice(seen, seen + PARENTS_AT_ONCE), MOST_OF_FLOW + 1));
    if (room < 0) break;
    seen += PARENTS_AT_ONCE;
  }
  if (room >= 0) await look(children);
  const whole = new Set(parents.slice(0, seen).map(nameOf));
  for (const flow of stuck.values()) {
    flow.children.sort(byName);
    flow.more = room < 0 && !flow.parents.every((parent) => whole.has(nameOf(parent)));
  }
  return { stuck: [...stuck.values()], unseen: parents.slice(seen) };
}

/**
 * Pure: by each parent that failed or was cancelled; by all of those together that are gone, for which of them was resolved
 * before nobody can tell; by the queue of the children where nothing is known.
 */
function addTo(stuck: Map<string, StuckFlow>, found: readonly StuckChild[]): void {
  for (const causes of Map.groupBy(found, nameOf).values()) {
    const [{ queue, jobId }] = causes as [StuckChild];
    const child = { queue, jobId };
    const put = (of: readonly StuckChild[]) => {
      const [cause] = of;
      if (!cause) return;
      const { reason, deadLetter, parentRetryCount } = cause;
      const parents = parentsOf(of).sort(byName);
      const since = of.map((one) => one.since).sort()[0] as string;
      const parent = parents.length === 1 ? nameOf(parents[0] as JobRef) : null;
      const key = fingerprintOf({ parent, parents, children: [child] });
      const same = stuck.get(key);
      if (!same)
        stuck.set(key, { parent, parents, parentRetryCount, reason, deadLetter, since, children: [child], chain: [], more: false });
      else {
        same.children.push(child);
        if (since < same.since) same.since = since;
      }
    };
    for (const cause of causes) if (cause.reason !== 'parent_gone') put([cause]);
    put(causes.filter(({ reason }) => reason === 'parent_gone'));
  }
}

/** Names the trouble: one parent is its own name, several are a digest of theirs. */
export function fingerprintOf({ parent, parents, children }: Pick<StuckFlow, 'parent' | 'parents' | 'children'>): string {
  if (parent !== null) return `${FLOW_PREFIX}${parent}`;
  if (parents.length === 0) return `${FLOW_PREFIX}of ${children[0]?.queue}`;
  return `${FLOW_PREFIX}several ${digestOf(parents).slice(0, 32)}`;
}

const digestOf = (jobs: readonly JobRef[]) => createHash('sha256').update(jobs.map(nameOf).join(' ')).digest('hex');

/** What waits behind each; where there is too much for one statement, in halves. Those of the same children have it in common. */
export async function addChains(sql: Sql, flows: FlowStore, stuck: readonly StuckFlow[]): Promise<void> {
  const alike = [...Map.groupBy(stuck, ({ children }) => digestOf(children)).values()];
  for (let first = 0; first < alike.length; first += FLOWS_AT_ONCE)
    await addChainsTo(sql, flows, alike.slice(first, first + FLOWS_AT_ONCE));
}

async function addChainsTo(sql: Sql, flows: FlowStore, alike: readonly StuckFlow[][]): Promise<void> {
  const roots = alike.flatMap(([flow], root) => flow?.children.map((child) => ({ ...child, root })) ?? []);
  const chains = await flows.listDescendants(sql, roots, MOST_OF_FLOW + 1);
  const tooMany = chains.length > MOST_OF_FLOW;
  if (tooMany && alike.length > 1) {
    const half = Math.ceil(alike.length / 2);
    for (const part of [alike.slice(0, half), alike.slice(half)]) await addChainsTo(sql, flows, part);
    return;
  }
  const byRoot = Map.groupBy(chains.slice(0, MOST_OF_FLOW), ({ root }) => root);
  for (const [root, group] of alike.entries()) {
    const chain = (byRoot.get(root) ?? []).sort(byName);
    for (const flow of group) {
      flow.chain = chain;
      flow.more ||= tooMany;
    }
  }
}
