import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readFleetId } from '../fleet/queries.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { filesOf, runOfFile } from './archive.ts';
import { ARCHIVE_FILES, isDue } from './classes.ts';
import type { PruneDependencies } from './prune.ts';
import { STAMP } from './runs.ts';

export type TidyDependencies = Pick<PruneDependencies, 'database' | 'node' | 'archiveDirectory' | 'periods'>;

/** This node's archive, in a directory that other nodes and other fleets may use, too. */
interface Shelf {
  fleet: string;
  node: string;
  directory: string;
}

export interface Tidied {
  /** Files past their period. */
  expired: string[];
  /** Files, and halves of files, of batches that never came to be: their rows are still in their tables. */
  abandoned: string[];
}

/**
 * Keeps this node's files to what the register says. Files of other nodes, of other fleets, and of runs that this database knows nothing of,
 * are left alone; so are files whose names do not say their fleet, unless they are registered.
 */
export async function tidyArchive({ database, node, archiveDirectory: directory, periods }: TidyDependencies): Promise<Tidied> {
  if (directory === undefined) return { expired: [], abandoned: [] };
  const shelf = { fleet: await readFleetId(database), node, directory };
  const abandoned = await removeAllAbandoned(database, shelf);
  return { abandoned, expired: Number.isFinite(periods.archive) ? await removeExpired(database, shelf, periods.archive) : [] };
}

async function removeAllAbandoned(database: Database, shelf: Shelf): Promise<string[]> {
  const runs = new Map<string, string>();
  for (const file of await readdir(shelf.directory)) {
    const run = runOfFile(file);
    if (run?.fleet === shelf.fleet) runs.set(run.id, run.stamp);
  }
  const abandoned: string[] = [];
  for (const [id, stamp] of runs) abandoned.push(...(await database.transaction((tx) => removeAbandoned(tx, { id, stamp, ...shelf }))));
  return abandoned;
}

/** Nobody writes files of a run while its row is held, and the files are listed after that. */
async function removeAbandoned(tx: Sql, { id, stamp, fleet, node, directory }: Shelf & { id: string; stamp: string }): Promise<string[]> {
  const held = await tx.query(`SELECT FROM retention_run WHERE id = $1 AND node = $2 AND ${STAMP} = $3 FOR UPDATE SKIP LOCKED`, [
    id,
    node,
    stamp,
  ]);
  if (held.length === 0) return [];
  const registered = await tx.query<{ name: string }>('SELECT name FROM archive_file WHERE run_id = $1', [id]);
  const known = new Set(registered.flatMap(({ name }) => filesOf(name)));
  const abandoned = (await readdir(directory)).filter((file) => {
    const run = runOfFile(file);
    return run?.fleet === fleet && run.id === id && run.stamp === stamp && !known.has(file);
  });
  for (const file of abandoned) await rm(join(directory, file), { force: true });
  return abandoned;
}

/** Only what is a file of an archive by its name, in the directory that we were given: the register is no order to remove anything else. */
async function removeExpired(database: Database, { fleet, node, directory }: Shelf, keptSeconds: number): Promise<string[]> {
  const registered = await database.query<{ id: string; runId: string; name: string }>(
    `SELECT id::text, run_id::text AS "runId", name FROM archive_file r
     WHERE ${isDue(ARCHIVE_FILES)} AND node = $2 AND directory = $3 ORDER BY id LIMIT 1000`,
    [keptSeconds, node, directory],
  );
  const expired = registered.filter(({ runId, name }) => {
    const run = runOfFile(name);
    return run?.id === runId && (run.fleet ?? fleet) === fleet;
  });
  for (const { id, name } of expired) {
    for (const file of filesOf(name)) await rm(join(directory, file), { force: true });
    await database.query('DELETE FROM archive_file WHERE id = $1', [id]);
  }
  return expired.map(({ name }) => name);
}

/**
 * Registered files past their period that nobody is left to remove: of nodes that have left the fleet, and of directories that this node has given
 * up. They stay where they are, if they are there still. @returns their places.
 */
export async function forgetOutOfReach({ database, node, archiveDirectory, periods }: TidyDependencies): Promise<string[]> {
  if (!Number.isFinite(periods.archive)) return [];
  const forgotten = await database.query<{ place: string }>(
    `DELETE FROM archive_file r WHERE ${isDue(ARCHIVE_FILES)}
       AND CASE WHEN r.node = $2 THEN r.directory IS DISTINCT FROM $3 ELSE NOT EXISTS (SELECT FROM node n WHERE n.node = r.node) END
     RETURNING r.node || ':' || r.directory || '/' || r.name AS place`,
    [periods.archive, node, archiveDirectory ?? null],
  );
  return forgotten.map(({ place }) => place);
}
