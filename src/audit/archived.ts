import type { Sql } from '../postgres/database.ts';
import { type ExpectedHead, REWRITTEN, UNIT_KEPT_SECONDS } from './chain.ts';
import { type Checkpoint, listCheckpoints } from './checkpoint.ts';
import { GENESIS } from './hash.ts';
import type { AuditProblem } from './problem.ts';
import { type ArchivedEvent, checkUnit, hashAt } from './unit.ts';

export interface ArchiveVerification {
  intact: boolean;
  /** Events that were looked at. */
  checked: number;
  /** The first position that is still in the archive; null where nothing is. */
  begins: number | null;
  problems: AuditProblem[];
}

export interface ArchiveReader {
  /** The events of a unit; undefined where it is not there. @throws where it is there and cannot be read */
  read(checkpoint: Checkpoint): Promise<ArchivedEvent[] | undefined>;
  /** How long the archive keeps what it has, but 30 days at least; Infinity: for ever. A unit that is older may be gone. */
  keptSeconds: number;
}

const PAGE = 100;

/**
 * Goes through the part of the chain that is in the archive, up to the checkpoint that the rest begins at. Reads only.
 * @param expected what was noted of the chain; compared where its position is in this part.
 */
export async function verifyArchive(sql: Sql, archive: ArchiveReader, expected?: ExpectedHead): Promise<ArchiveVerification> {
  const result: ArchiveVerification = { intact: true, checked: 0, begins: null, problems: [] };
  let before: Pick<Checkpoint, 'position' | 'chainHash'> = { position: 0, chainHash: GENESIS };
  for (;;) {
    const page = await listCheckpoints(sql, before.position, PAGE);
    for (const checkpoint of page) {
      const { firstPosition, position, beforeHash } = checkpoint;
      if (firstPosition !== before.position + 1 || !beforeHash.equals(before.chainHash))
        result.problems.push({ seq: null, position: firstPosition, what: `the checkpoint ${position} does not follow ${before.position}` });
      await verifyUnit(archive, checkpoint, result, expected);
      before = checkpoint;
    }
    if (page.length < PAGE) return { ...result, intact: result.problems.length === 0 };
  }
}

async function verifyUnit(
  archive: ArchiveReader,
  checkpoint: Checkpoint,
  result: ArchiveVerification,
  expected: ExpectedHead | undefined,
): Promise<void> {
  const { firstPosition, position, archivedSeconds, archiveFile } = checkpoint;
  const told = (what: string) => result.problems.push({ seq: null, position: firstPosition, what });
  const noted = expected && expected.position >= firstPosition && expected.position <= position ? expected : undefined;
  if (noted?.position === position && noted.hash !== checkpoint.chainHash.toString('hex')) told(REWRITTEN);
  try {
    const events = await archive.read(checkpoint);
    if (noted && noted.position < position) {
      if (!events) told(`what was noted of position ${noted.position} cannot be compared: its events are gone from the archive`);
      else if (hashAt(events, checkpoint, noted.position) !== noted.hash) told(REWRITTEN);
    }
    if (events) {
      result.begins ??= firstPosition;
      result.checked += events.length;
      result.problems.push(...checkUnit(events, checkpoint));
    } else if (archivedSeconds <= Math.max(archive.keptSeconds, UNIT_KEPT_SECONDS) || result.begins !== null)
      told(`the events ${firstPosition} to ${position} are not in the archive${archiveFile === null ? '' : `: ${archiveFile}`}`);
  } catch (error) {
    told(`the events ${firstPosition} to ${position} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}
