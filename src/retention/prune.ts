import { appendAudit } from '../audit/append.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { DatabaseError, DatabaseUnreachable, LockNotAvailable } from '../postgres/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import { type ArchiveTarget, openArchive } from './archive.ts';
import { pruneChain } from './chain.ts';
import { RECORD_CLASSES, type RecordClass, type RecordName } from './classes.ts';
import { isAnythingDue, type Pruned, pruneRows, readExtent } from './rows.ts';
import { beginRun, endRun, holdRun, type Run, RunLost, type RunUnderWay, saveProgress } from './runs.ts';

/** How long each class is kept, in seconds; Infinity: for ever. */
export type Periods = Readonly<Record<RecordName, number>>;

export interface PruneDependencies {
  database: Database;
  clock: Clock;
  periods: Periods;
  node: string;
  /** Then it stops, and goes on at the next run. */
  budgetMs: number;
  /** Where what is archived first goes, as files; undefined: into the table `archive`. */
  archiveDirectory: string | undefined;
}

export interface PruneOrder {
  actor: string;
  reason: string | null;
  /** Aborted, the run ends after the batch that is under way. */
  signal?: AbortSignal;
  /** For a schedule that came due so long ago: not again where another node has done it. */
  dueForSeconds?: number;
}

export interface ClassResult {
  pruned: number;
  archived: number;
  /** The run was over, or something failed, before everything that is due was gone. */
  left: boolean;
  error?: string;
}

export type PruneResult = Partial<Record<RecordName, ClassResult>>;

/** So that others get at the database in between. */
const PAUSE_MS = 5;
const OUTAGE_PAUSE_MS = 1_000;
/** A statement's time that batches are made for, and the pages of the first. */
const AIM_MS = 100;
const FIRST_PAGES = 64;
const MOST_PAGES = 2048;
/** Of one batch, with what its rows keep outside of their pages. */
const MOST_BYTES = 32 * 1024 * 1024;
/** A batch is a file, which whoever restores it reads whole. */
const MOST_PAGES_OF_FILE = 256;
const MOST_BYTES_OF_FILE = 8 * 1024 * 1024;
/** What goes to a file passes through this process in such parts. */
const MOST_PAGES_AT_ONCE = 8;
const MOST_BYTES_AT_ONCE = 1024 * 1024;
/** A class with more pages that cannot be archived has a fault that is not its rows'. */
const MOST_SPOILT_PAGES = 10;

/**
 * Archives and removes what is due, class by class, in bounded batches, each of which does both or neither. What fails in one class keeps
 * no other from its turn; rows that others hold are left for the next time. One run at a time in the fleet, a row of the ledger each and,
 * where anything went or failed, or a person asked, one audit event; a run that breaks off is audited by the next.
 */
export async function runArchivePrune(
  dependencies: PruneDependencies,
  { signal, dueForSeconds, ...order }: PruneOrder,
): Promise<{ classes: PruneResult } | { underWay: RunUnderWay } | { done: RunUnderWay }> {
  const { database, clock, node, budgetMs, archiveDirectory } = dependencies;
  const begun = await beginRun(database, { node, dueForSeconds, ...order });
  if (!('run' in begun)) return begun;
  const { run } = begun;
  const archive = openArchive(run, archiveDirectory, await readSchemaVersion(database));
  const deadline = clock.now() + budgetMs;
  const classes: PruneResult = {};
  // Each run begins with another class: none waits for ever behind one that takes all of the time.
  const first = Number(run.id) % RECORD_CLASSES.length;
  for (const recordClass of [...RECORD_CLASSES.slice(first), ...RECORD_CLASSES.slice(0, first)]) {
    if (recordClass.removal === 'rotation') continue;
    classes[recordClass.name] = await pruneClass(dependencies, { recordClass, run, archive, deadline, signal, before: { ...classes } });
  }
  const told = Object.fromEntries(Object.entries(classes).filter(([, { pruned, error }]) => pruned > 0 || error !== undefined));
  await database.transaction(async (tx) => {
    await endRun(tx, run, classes);
    // What nobody asked for and did nothing is no event.
    if (order.reason !== null || Object.keys(told).length > 0)
      await appendAudit(tx, {
        ...order,
        action: 'retention_prune',
        target: 'retention',
        outcome: outcomeOf(Object.values(classes)),
        node,
        detail: { run: run.id, classes: told, archive: archiveDirectory ?? 'table' },
      });
  });
  return { classes };
}

function outcomeOf(results: readonly ClassResult[]): 'done' | 'partial' | 'failed' {
  if (results.every(({ error }) => error === undefined)) return 'done';
  return results.some(({ pruned }) => pruned > 0) ? 'partial' : 'failed';
}

interface ClassRun {
  recordClass: RecordClass;
  run: Run;
  archive: ArchiveTarget;
  /** No further batch begins after it, nor once the signal is aborted. */
  deadline: number;
  signal: AbortSignal | undefined;
  /** Of the classes before. */
  before: PruneResult;
}

async function pruneClass(dependencies: PruneDependencies, classRun: ClassRun): Promise<ClassResult> {
  const { database, clock, periods } = dependencies;
  const { recordClass, run, archive, deadline, signal, before } = classRun;
  const result: ClassResult = { pruned: 0, archived: 0, left: false };
  const seconds = periods[recordClass.name];
  if (!Number.isFinite(seconds)) return result;
  const isOver = () => signal?.aborted === true || clock.now() >= deadline;
  // Whoever is told to stop does not look through tables first.
  const endedEarly = async () => ({ ...result, left: signal?.aborted === true || (await isAnythingDue(database, recordClass, seconds)) });
  const inBatch: InBatch = async (work) => {
    for (;;) {
      try {
        return await database.transaction(async (tx) => {
          await holdRun(tx, run);
          const went = await work(tx);
          if (went.pruned > 0) await saveProgress(tx, run, { ...before, [recordClass.name]: sum(result, went) });
          return went;
        });
      } catch (error) {
        // A short outage is over within the lease.
        if (!(error instanceof DatabaseUnreachable) || isOver()) throw error;
        await clock.sleep(OUTAGE_PAUSE_MS, signal);
      }
    }
  };
  const batches =
    recordClass.removal === 'chain' ? chainBatches(inBatch, seconds, archive) : rowBatches(dependencies, classRun, inBatch, seconds);
  try {
    if (isOver()) return await endedEarly();
    for await (const went of batches) {
      Object.assign(result, sum(result, went));
      if (isOver()) return await endedEarly();
      await clock.sleep(PAUSE_MS);
    }
    return result;
  } catch (error) {
    if (error instanceof RunLost) throw error;
    return { ...result, left: true, error: error instanceof Error ? error.message : String(error) };
  }
}

const sum = (result: ClassResult, { pruned, archived }: Pruned): ClassResult => ({
  ...result,
  pruned: result.pruned + pruned,
  archived: result.archived + archived,
});

type InBatch = (work: (tx: Sql) => Promise<Pruned>) => Promise<Pruned>;

async function* chainBatches(inBatch: InBatch, seconds: number, archive: ArchiveTarget): AsyncGenerator<Pruned> {
  for (;;) {
    const went = await inBatch((tx) => pruneChain(tx, seconds, archive));
    if (went.pruned === 0) return;
    yield went;
  }
}

/** Along the pages of the table, as many at a time as the database does in good time. */
async function* rowBatches(
  { database, clock }: PruneDependencies,
  { recordClass, archive }: ClassRun,
  inBatch: InBatch,
  seconds: number,
): AsyncGenerator<Pruned> {
  const { pages: end, bytesPerPage } = await readExtent(database, recordClass.table);
  const within = (mostPages: number, mostBytes: number) => Math.max(1, Math.min(mostPages, Math.floor(mostBytes / bytesPerPage)));
  const isFile = recordClass.archived && archive.kind === 'files';
  const most = isFile ? within(MOST_PAGES_OF_FILE, MOST_BYTES_OF_FILE) : within(MOST_PAGES, MOST_BYTES);
  const pagesAtOnce = within(MOST_PAGES_AT_ONCE, MOST_BYTES_AT_ONCE);
  let size = Math.min(FIRST_PAGES, most);
  const spoilt: unknown[] = [];
  for (let from = 0; from < end; ) {
    const startedAt = clock.now();
    const range = { from, to: from + size };
    const batch = { recordClass, seconds, range, pagesAtOnce };
    try {
      yield await inBatch((tx) => pruneRows(tx, { ...batch, skipHeld: false }, archive)).catch((error: unknown) => {
        if (!(error instanceof LockNotAvailable)) throw error;
        return inBatch((tx) => pruneRows(tx, { ...batch, skipHeld: true }, archive));
      });
    } catch (error) {
      if (!isOfRows(error) || spoilt.length === MOST_SPOILT_PAGES) throw error;
      if (size > 1) {
        size = Math.floor(size / 2);
        continue;
      }
      spoilt.push(error);
    }
    from = range.to;
    const took = clock.now() - startedAt;
    if (took > 2 * AIM_MS) size = Math.max(1, Math.floor(size / 2));
    else if (took < AIM_MS / 2) size = Math.min(most, size * 2);
  }
  if (spoilt.length > 0) throw new Error(`${spoilt.length} pages of ${recordClass.table} were passed over: ${String(spoilt[0])}`);
}

/** What some value in a row may have brought about: the rows of other pages may go all the same. */
const isOfRows = (error: unknown) => error instanceof DatabaseError && error.constructor === DatabaseError;

async function readSchemaVersion(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ version: number }>('SELECT max(version)::int AS version FROM migration');
  return row?.version ?? 0;
}
