import type { Sql } from '../postgres/database.ts';
import { type JsonLines, type Manifest, manifestName, writeArchiveFile } from './archive-file.ts';
import type { RecordName } from './classes.ts';
import type { Run } from './runs.ts';

/** Where what goes is kept: in the table `archive`, or in files of a directory of this node. */
export type ArchiveTarget = { kind: 'table' } | FileArchive;

export interface FileArchive {
  kind: 'files';
  directory: string;
  /** Writes one file, whole and on disk, and registers it in the transaction of what it archives; none where there are no records. */
  write(tx: Sql, name: RecordName, records: AsyncIterable<JsonLines>): Promise<Pick<Manifest, 'file' | 'rows'> | undefined>;
}

/** The archive of one run. Its files are named for its fleet and the run, so that those that it never registered are known. */
export function openArchive(run: Run, directory: string | undefined, schemaVersion: number): ArchiveTarget {
  if (directory === undefined) return { kind: 'table' };
  let number = 0;
  return {
    kind: 'files',
    directory,
    write: async (tx, recordName, records) => {
      // A slow disk is no stalled process; and who waits for rows that go beats no more.
      await tx.query(`SET LOCAL idle_in_transaction_session_timeout = '60s'`);
      number += 1;
      const name = fileName(recordName, run, number);
      const about = { class: recordName, node: run.node, run: run.id, schemaVersion };
      const manifest = await writeArchiveFile(directory, name, records, about);
      if (!manifest) return undefined;
      const { rows, bytes, sha256 } = manifest;
      await tx.query(
        'INSERT INTO archive_file (run_id, class, node, directory, name, rows, bytes, sha256) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)',
        [run.id, recordName, run.node, directory, name, rows, bytes, sha256],
      );
      return manifest;
    },
  };
}

const fileName = (recordName: RecordName, run: Run, number: number) =>
  `${recordName}-${run.fleet}-${run.stamp}-${run.id}-${String(number).padStart(4, '0')}.jsonl.gz`;

const OF_A_RUN =
  /^\.?[a-z_]+-(?:([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})-)?(\d{8}T\d{6}Z)-(\d+)-\d{4,}\.(?:jsonl\.gz|manifest\.json)(?:\.part)?$/;

/** What the name of a file says of the run that wrote it. */
export interface RunOfFile {
  /** Undefined: of schema version 27 or older, whose names did not say it. */
  fleet: string | undefined;
  stamp: string;
  id: string;
}

/** The run that a file in an archive's directory was written by, half files among them; undefined: no file of an archive. */
export function runOfFile(file: string): RunOfFile | undefined {
  const [, fleet, stamp, id] = OF_A_RUN.exec(file) ?? [];
  return stamp === undefined || id === undefined ? undefined : { fleet, stamp, id };
}

/** The files that a registered one consists of. */
export const filesOf = (name: string): string[] => [name, manifestName(name)];
