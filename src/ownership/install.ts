import { setTimeout as delay } from 'node:timers/promises';
import type { Database, Sql } from '../postgres/database.ts';
import { LockNotAvailable, UndefinedObject } from '../postgres/errors.ts';
import { functionExists, type JobTable, listJobTables } from './queries.ts';
import { createFunctionSql, createTriggerSql, dropFunctionSql, dropTriggerSql, type OwnershipTarget } from './trigger.ts';

/** Creating a trigger waits for running writers and holds up those behind it: never longer than this at a time. */
const LOCK_TIMEOUT_MS = 200;
const LOCK_TRIES = 60;
const LOCK_PAUSE_MS = 250;

/** A job table stayed locked by others for as long as we were willing to try. */
export class JobTableBusy extends Error {
  override readonly name = 'JobTableBusy';
}

/**
 * Puts the trigger on every leaf job table; repeating it changes nothing. Safe while workers work: one short
 * transaction a table, with a short lock time-out, tried again.
 */
export async function installOwnership(database: Database, target: OwnershipTarget): Promise<{ installed: string[]; present: string[] }> {
  await database.query(createFunctionSql(target));
  const tables = await listJobTables(database, target);
  const installed = await cover(database, target, tables, LOCK_TRIES);
  return { installed, present: tables.filter((table) => table.covered).map((table) => table.name) };
}

/** Takes trigger and function away; what was recorded stays until rotation. */
export async function removeOwnership(database: Database, target: OwnershipTarget): Promise<void> {
  for (const table of await listJobTables(database, target))
    await changeTable(database, table.name, dropTriggerSql(target, table.name), LOCK_TRIES);
  await database.query(dropFunctionSql(target));
}

/** The periodic pass: covers the tables of queues that are new, if ownership is installed at all. */
export async function coverNewTables(database: Database, target: OwnershipTarget): Promise<string[]> {
  if (!(await functionExists(database, target))) return [];
  return cover(database, target, await listJobTables(database, target), 3);
}

export interface OwnershipState {
  installed: boolean;
  tables: JobTable[];
  /** Names of the tables whose attempts have no recorded owner. */
  missing: string[];
}

export async function ownershipState(sql: Sql, target: OwnershipTarget): Promise<OwnershipState> {
  const tables = await listJobTables(sql, target);
  const installed = (await functionExists(sql, target)) && tables.some((table) => table.covered);
  return { installed, tables, missing: tables.filter((table) => !table.covered).map((table) => table.name) };
}

async function cover(database: Database, target: OwnershipTarget, tables: readonly JobTable[], tries: number): Promise<string[]> {
  const missing = tables.filter((table) => !table.covered).map((table) => table.name);
  // A trigger of that name that is disabled, or calls something else, is replaced.
  for (const table of missing)
    await changeTable(database, table, `${dropTriggerSql(target, table)}; ${createTriggerSql(target, table)}`, tries);
  return missing;
}

async function changeTable(database: Database, table: string, statements: string, tries: number): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await database.transaction(async (tx) => {
        await tx.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
        await tx.query(statements);
      });
      return;
    } catch (cause) {
      // The queue was deleted meanwhile, and its table with it.
      if (cause instanceof UndefinedObject) return;
      if (!(cause instanceof LockNotAvailable)) throw cause;
      if (attempt >= tries)
        throw new JobTableBusy(`job table "${table}" stayed locked: a long transaction holds it; try again when it has ended`, { cause });
      await delay(LOCK_PAUSE_MS);
    }
  }
}
