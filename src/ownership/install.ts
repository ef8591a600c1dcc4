import { setTimeout as delay } from 'node:timers/promises';
import { type Database, quoteIdentifier, type Sql } from '../postgres/database.ts';
import { DatabaseUnreachable, LockNotAvailable, UndefinedObject } from '../postgres/errors.ts';
import { functionExists, isTurnThere, type JobTable, listFunctions, listJobTables, restoreTurn } from './queries.ts';
import {
  createFunctionSql,
  createTriggerSql,
  dropRetiredFunctionSql,
  dropTriggerSql,
  FUNCTION,
  type OwnershipTarget,
  RETIRED_FUNCTION,
  retireFunctionSql,
} from './trigger.ts';

/** Changing a table's triggers waits for its writers and holds up those behind it: never longer than this at a time. */
const LOCK_TIMEOUT_MS = 200;
const LOCK_PAUSE_MS = 250;
const LOCK_ROUNDS = 60;
/** The periodic pass comes again. */
const LOCK_ROUNDS_PERIODIC = 3;

/** Audits a change of those tables' triggers in its transaction: what cannot be recorded is not done. */
export type RecordChange = (tx: Sql, tables: readonly string[]) => Promise<void>;

const unrecorded: RecordChange = async () => undefined;

/** Tables that stayed locked by others for as long as we were willing to try, or that refused. */
export class JobTablesUnchanged extends Error {
  override readonly name = 'JobTablesUnchanged';
  readonly tables: readonly string[];
  constructor(faults: ReadonlyMap<string, unknown>) {
    const reasons = [...faults].map(([table, fault]) => `"${table}" ${describeFault(fault)}`);
    super(`${reasons.join('; ')}; everything else is done, run this again later`, { cause: faults.values().next().value });
    this.tables = [...faults.keys()];
  }
}

function describeFault(fault: unknown): string {
  if (fault instanceof LockNotAvailable) return 'stayed locked by a long transaction or an autovacuum';
  return `was refused: ${fault instanceof Error ? fault.message : String(fault)}`;
}

/**
 * Puts the trigger on every leaf job table; repeating it changes nothing. Safe while workers work: one short
 * transaction a table, with a short lock time-out, tried again. A daemon covers the tables that stayed busy.
 */
export async function installOwnership(
  database: Database,
  target: OwnershipTarget,
  record: RecordChange = unrecorded,
): Promise<{ installed: string[]; present: string[] }> {
  await restoreTurn(database);
  await database.query(createFunctionSql(target));
  const tables = await listJobTables(database, target);
  const installed = await cover(database, target, tables, LOCK_ROUNDS, record);
  // What a removal that was cut short has left.
  if ((await listFunctions(database, target.schema)).has(RETIRED_FUNCTION)) await dropRetiredFunction(database, target);
  return { installed, present: tables.filter((table) => table.covered).map((table) => table.name) };
}

/**
 * Takes trigger and function away; what was recorded stays until rotation. The function is renamed first: from then on
 * ownership counts as not installed, and no daemon covers again what was just uncovered. That is when it is recorded; what a
 * removal that was cut short has left goes without another record.
 */
export async function removeOwnership(database: Database, target: OwnershipTarget, record: RecordChange = unrecorded): Promise<void> {
  const functions = await listFunctions(database, target.schema);
  const tables = (await listJobTables(database, target)).map((table) => table.name);
  if (functions.has(FUNCTION)) {
    if (functions.has(RETIRED_FUNCTION)) await dropRetiredFunction(database, target);
    await database.transaction(async (tx) => {
      await tx.query(retireFunctionSql(target));
      await record(tx, tables);
    });
  }
  await changeTables(database, tables, (table) => dropTriggerSql(target, table), LOCK_ROUNDS);
  await dropRetiredFunction(database, target);
}

/** The periodic pass: covers the tables of queues that are new, if ownership is installed at all. */
export async function coverNewTables(database: Database, target: OwnershipTarget, record: RecordChange = unrecorded): Promise<string[]> {
  if (!(await functionExists(database, target.schema))) return [];
  return cover(database, target, await listJobTables(database, target), LOCK_ROUNDS_PERIODIC, record);
}

export interface OwnershipState {
  installed: boolean;
  /** Why nothing can be recorded although the triggers are there; undefined where it can. */
  broken: string | undefined;
  tables: JobTable[];
  /** Names of the tables whose attempts have no recorded owner. */
  missing: string[];
}

export async function ownershipState(sql: Sql, target: OwnershipTarget): Promise<OwnershipState> {
  const tables = await listJobTables(sql, target);
  const installed = (await functionExists(sql, target.schema)) && tables.some((table) => table.covered);
  return {
    installed,
    broken: await findBreakage(sql, target),
    tables,
    missing: tables.filter((table) => !table.covered).map((table) => table.name),
  };
}

/** The triggers swallow their errors, so that somebody has to look whether they can write. */
async function findBreakage(sql: Sql, { schema }: OwnershipTarget): Promise<string | undefined> {
  try {
    return (await isTurnThere(sql)) ? undefined : `"${schema}".attempt_turn has lost its row: \`reclaimd install-ownership\` puts it back`;
  } catch (error) {
    if (!(error instanceof UndefinedObject)) throw error;
    return `schema "${schema}" is damaged: ${error.message}; restore it from a backup, or drop it and run \`reclaimd migrate\` and \`reclaimd install-ownership\``;
  }
}

function cover(
  database: Database,
  target: OwnershipTarget,
  tables: readonly JobTable[],
  rounds: number,
  record: RecordChange,
): Promise<string[]> {
  const missing = tables.filter((table) => !table.covered).map((table) => table.name);
  return changeTables(database, missing, (table) => createTriggerSql(target, table), rounds, record);
}

async function dropRetiredFunction(database: Database, target: OwnershipTarget): Promise<void> {
  await changeTables(database, [`${quoteIdentifier(target.schema)} function`], () => dropRetiredFunctionSql(target), LOCK_ROUNDS);
}

/** Runs a statement a table, each in a transaction of its own; the busy ones again, in rounds. None holds up the others, nor does one that refuses. */
async function changeTables(
  database: Database,
  tables: readonly string[],
  statementFor: (table: string) => string,
  rounds: number,
  record: RecordChange = unrecorded,
): Promise<string[]> {
  const changed: string[] = [];
  const refused = new Map<string, unknown>();
  let waiting = [...tables];
  for (let round = 1; ; round++) {
    const busy = new Map<string, unknown>();
    for (const table of waiting) {
      try {
        await database.transaction(async (tx) => {
          await tx.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
          await tx.query(statementFor(table));
          await record(tx, [table]);
        });
        changed.push(table);
      } catch (error) {
        // The queue was deleted meanwhile and its table with it, or ownership was removed.
        if (error instanceof UndefinedObject) continue;
        if (error instanceof DatabaseUnreachable) throw error;
        (error instanceof LockNotAvailable ? busy : refused).set(table, error);
      }
    }
    if (busy.size === 0 || round >= rounds) {
      const faults = new Map([...refused, ...busy]);
      if (faults.size > 0) throw new JobTablesUnchanged(faults);
      return changed;
    }
    waiting = [...busy.keys()];
    await delay(LOCK_PAUSE_MS);
  }
}
