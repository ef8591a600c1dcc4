import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { ArchiveReader } from '../audit/archived.ts';
import type { ArchivedEvent } from '../audit/unit.ts';
import type { Sql } from '../postgres/database.ts';
import { readArchiveFile } from './archive-file.ts';

/** Reads the audit's archived units: from the table, or from files, which are looked for in `directory` first and then where they were written. */
export function createUnitReader(
  sql: Sql,
  { directory, keptSeconds }: { directory: string | undefined; keptSeconds: number },
): ArchiveReader {
  return {
    keptSeconds,
    read: async ({ archiveId, archiveFile }) => {
      if (archiveFile === null) {
        const [row] = await sql.query<{ events: ArchivedEvent[] }>(`SELECT record->'events' AS events FROM archive WHERE id = $1`, [
          archiveId,
        ]);
        return row?.events;
      }
      const [file] = await sql.query<{ directory: string; node: string }>('SELECT directory, node FROM archive_file WHERE name = $1', [
        archiveFile,
      ]);
      const path = await findFile([directory, file?.directory], archiveFile);
      if (path === undefined && file)
        throw new Error(`${archiveFile} is not here: node ${file.node} has written it into ${file.directory}`);
      return path === undefined ? undefined : (await readArchiveFile(path)).lines.map((line) => JSON.parse(line) as ArchivedEvent);
    },
  };
}

async function findFile(directories: readonly (string | undefined)[], name: string): Promise<string | undefined> {
  for (const directory of directories) {
    if (directory === undefined) continue;
    const path = join(directory, name);
    const found = await access(path).then(
      () => true,
      () => false,
    );
    if (found) return path;
  }
  return undefined;
}
