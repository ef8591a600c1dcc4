import type { Sql } from '../postgres/database.ts';

/** Up to here the chain is in the archive; its hash there is what the rest is chained to. */
export interface Checkpoint {
  position: number;
  chainHash: Buffer;
  firstPosition: number;
  /** The chain before the first event of the unit. */
  beforeHash: Buffer;
  /** The unit: a row of the archive, or a file of it. */
  archiveId: string | null;
  archiveFile: string | null;
  archivedSeconds: number;
  /** Whether the archive says that it has the unit. */
  kept: boolean;
}

const COLUMNS = `position::float8 AS position, chain_hash AS "chainHash", first_position::float8 AS "firstPosition", before_hash AS "beforeHash",
  archive_id::text AS "archiveId", archive_file AS "archiveFile", extract(epoch FROM now() - archived_at)::float8 AS "archivedSeconds",
  EXISTS (SELECT FROM archive a WHERE a.id = archive_id AND a.class = 'audit')
    OR EXISTS (SELECT FROM archive_file f WHERE f.name = archive_file AND f.class = 'audit') AS kept`;

/** Where what is left of the chain begins; undefined where nothing was ever archived. */
export async function findCheckpoint(sql: Sql): Promise<Checkpoint | undefined> {
  const [checkpoint] = await sql.query<Checkpoint>(`SELECT ${COLUMNS} FROM audit_checkpoint ORDER BY position DESC LIMIT 1`);
  return checkpoint;
}

/** The checkpoints after a position, in their order. */
export function listCheckpoints(sql: Sql, after: number, limit: number): Promise<Checkpoint[]> {
  return sql.query<Checkpoint>(`SELECT ${COLUMNS} FROM audit_checkpoint WHERE position > $1 ORDER BY position LIMIT $2`, [after, limit]);
}
