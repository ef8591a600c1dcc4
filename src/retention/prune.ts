import { appendAudit } from '../audit/append.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { DatabaseError, DatabaseUnreachable, LockNotAvailable, StatementTimedOut } from '../postgres/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import { type ArchiveTarget, openArchive } from './archive.ts';
import { pruneChain } from './chain.ts';
import { RECORD_CLASSES, type RecordClass, type RecordName } from './classes.ts';
import { findDuePage, isAnythingDue, type Pruned, pruneRows, readExtent } from './rows.ts';
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
  /** For a schedule that came due so long ago: not again where another node has done it, or this one has tried. */
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
/** A statement's time that batches are made for, and the pages of the first: nobody knows yet what a row costs. */
const AIM_MS = 100;
const FIRST_PAGES = 8;
const MOST_PAGES = 2048;
/** That one look for the next due row goes through, where a batch has found none. */
const PAGES_A_LOOK = 1024;
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
  const inTurn: InTurn = async (work) => {
    for (;;) {
      try {
        return await database.transaction(async (tx) => {
          await holdRun(tx, run);
          return work(tx);
        });
      } catch (error) {
        // A short outage is over within the lease.
        if (!(error instanceof DatabaseUnreachable) || isOver()) throw error;
        await clock.sleep(OUTAGE_PAUSE_MS, signal);
      }
    }
  };
  const inBatch: InBatch = (work) =>
    inTurn(async (tx) => {
      const went = await work(tx);
      if (went.pruned > 0) await saveProgress(tx, run, { ...before, [recordClass.name]: sum(result, went) });
      return went;
    });
  const batches =
    recordClass.removal === 'chain'
      ? chainBatches(inBatch, seconds, archive)
      : rowBatches(dependencies, classRun, inTurn, inBatch, seconds);
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

/** In a transaction that holds the run. */
type InTurn = <T>(work: (tx: Sql) => Promise<T>) => Promise<T>;
/** The same, with what went noted in the ledger. */
type InBatch = (work: (tx: Sql) => Promise<Pruned>) => Promise<Pruned>;

async function* chainBatches(inBatch: InBatch, seconds: number, archive: ArchiveTarget): AsyncGenerator<Pruned> {
  for (;;) {
    const went = await inBatch((tx) => pruneChain(tx, seconds, archive));
    if (went.pruned === 0) return;
    yield went;
  }
}

/** Along the pages of the table, from one that has due rows to the next, as many at a time as the database does in good time. */
async function* rowBatches(
  { database, clock }: PruneDependencies,
  { recordClass, archive }: ClassRun,
  inTurn: InTurn,
  inBatch: InBatch,
  seconds: number,
): AsyncGenerator<Pruned> {
  const { pages: end, bytesPerPage, rowsPerPage } = await readExtent(database, recordClass.table);
  const within = (mostPages: number, mostBytes: number) => Math.max(1, Math.min(mostPages, Math.floor(mostBytes / bytesPerPage)));
  const isFile = recordClass.archived && archive.kind === 'files';
  const most = isFile ? within(MOST_PAGES_OF_FILE, MOST_BYTES_OF_FILE) : within(MOST_PAGES, MOST_BYTES);
  const pagesAtOnce = within(MOST_PAGES_AT_ONCE, MOST_BYTES_AT_ONCE);
  let size = Math.min(FIRST_PAGES, most);
  const spoilt: unknown[] = [];
  let isEmptyHere = false;
  for (let from = 0; from < end; ) {
    if (isEmptyHere) {
      const upTo = Math.min(end, from + PAGES_A_LOOK);
      const next = await inTurn((tx) => findDuePage(tx, recordClass, seconds, { from, to: upTo }));
      from = next ?? upTo;
      isEmptyHere = next === undefined;
      continue;
    }
    const range = { from, to: from + size };
    const batch = { recordClass, seconds, range, pagesAtOnce };
    let work: Stopwatch = createStopwatch(clock);
    const prune = (skipHeld: boolean) =>
      inBatch((tx) => {
        work = createStopwatch(clock);
        return pruneRows(work.watch(tx), { ...batch, skipHeld }, archive);
      });
    let went: Pruned;
    try {
      went = await prune(false).catch((error: unknown) => {
        if (!(error instanceof LockNotAvailable)) throw error;
        return prune(true);
      });
    } catch (error) {
      const isTooMuch = error instanceof StatementTimedOut && size > 1;
      if (!isTooMuch && (!isOfRows(error) || spoilt.length === MOST_SPOILT_PAGES)) throw error;
      if (size > 1) size = Math.floor(size / 2);
      else {
        spoilt.push(error);
        from = range.to;
      }
      continue;
    }
    yield went;
    from = range.to;
    isEmptyHere = went.pruned === 0;
    const ms = work.longestMs();
    // What few rows cost says nothing of as many pages that are full of them.
    const isTelling = went.pruned >= (size * rowsPerPage) / 4;
    if (ms > 2 * AIM_MS) size = Math.max(1, Math.floor(size / 2));
    else if (ms < AIM_MS / 2 && isTelling) size = Math.min(most, size * 2);
  }
  if (spoilt.length > 0) throw new Error(`${spoilt.length} pages of ${recordClass.table} were passed over: ${String(spoilt[0])}`);
}

interface Stopwatch {
  watch(sql: Sql): Sql;
  /** Of the slowest statement, beyond what the first takes, which does nothing: the way to the database is no work of its. */
  longestMs(): number;
}

function createStopwatch(clock: Clock): Stopwatch {
  const times: number[] = [];
  async function timed<T>(statement: Promise<T>): Promise<T> {
    const startedAt = clock.now();
    const result = await statement;
    times.push(clock.now() - startedAt);
    return result;
  }
  return {
    watch: (sql) => ({
      query: (text, values) => timed(sql.query<never>(text, values)),
      execute: (text, values) => timed(sql.execute(text, values)),
    }),
    longestMs: () => Math.max(0, ...times.slice(1)) - (times[0] ?? 0),
  };
}

/** What some value in a row may have brought about: the rows of other pages may go all the same. */
const isOfRows = (error: unknown) => error instanceof DatabaseError && error.constructor === DatabaseError;

async function readSchemaVersion(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ version: number }>('SELECT max(version)::int AS version FROM migration');
  return row?.version ?? 0;
}
