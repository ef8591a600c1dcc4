import { basename } from 'node:path';
import type { Database, Sql } from '../postgres/database.ts';
import { ArchiveDamaged, readArchiveFile } from './archive-file.ts';

export interface Restored {
  file: string;
  class: string;
  rows: number;
}

/** Rows of one statement. */
const BATCH = 5_000;

/**
 * Reads a file of the archive back, for an investigation, into the table `restored`: all of it, or nothing. Read again, it is there once.
 * @param record the audit of it, in the same transaction.
 * @throws ArchiveDamaged where the file is not what its manifest says, or not what the register says as long as it is there.
 */
export async function restoreFile(
  database: Database,
  path: string,
  record: (tx: Sql, restored: Restored) => Promise<void>,
): Promise<Restored> {
  const { manifest, lines } = await readArchiveFile(path);
  const file = basename(path);
  const restored = { file, class: manifest.class, rows: lines.length };
  const [registered] = await database.query<{ sha256: string }>('SELECT sha256 FROM archive_file WHERE name = $1', [file]);
  if (registered && registered.sha256 !== manifest.sha256)
    throw new ArchiveDamaged(`${path}: its hash is ${manifest.sha256}, ${registered.sha256} is registered`);
  await database.transaction(async (tx) => {
    await tx.query('DELETE FROM restored WHERE file = $1', [file]);
    for (let start = 0; start < lines.length; start += BATCH)
      await tx.query(
        `INSERT INTO restored (file, line, class, record)
         SELECT $1, $2 + row.number, $3, row.record::jsonb FROM unnest($4::text[]) WITH ORDINALITY AS row(record, number)`,
        [file, start, manifest.class, lines.slice(start, start + BATCH)],
      );
    await record(tx, restored);
  });
  return restored;
}
