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
}

const COLUMNS = `position::float8 AS position, chain_hash AS "chainHash", first_position::float8 AS "firstPosition", before_hash AS "beforeHash",
  archive_id::text AS "archiveId", archive_file AS "archiveFile", extract(epoch FROM now() - archived_at)::float8 AS "archivedSeconds"`;

/** Where what is left of the chain begins; undefined where nothing was ever archived. */
export async function findCheckpoint(sql: Sql): Promise<Checkpoint | undefined> {
  const [checkpoint] = await sql.query<Checkpoint>(`SELECT ${COLUMNS} FROM audit_checkpoint ORDER BY position DESC LIMIT 1`);
  return checkpoint;
}

/** The checkpoints after a position, in their order. */
export function listCheckpoints(sql: Sql, after: number, limit: number): Promise<Checkpoint[]> {
  return sql.query<Checkpoint>(`SELECT ${COLUMNS} FROM audit_checkpoint WHERE position > $1 ORDER BY position LIMIT $2`, [after, limit]);
}
