import type { Sql } from '../postgres/database.ts';
import { UndefinedObject } from '../postgres/errors.ts';
import type { PgBossRelease } from './release.ts';

/** Schema versions that the tests cover: 44 (12.36, the registry) to 46 (12.38). */
export const SUPPORTED_SCHEMAS = { oldest: 44, newest: 46 } as const;

export interface GateState {
  /** What may be done: everything, only look, or wait for pg-boss to be installed. */
  mode: 'act' | 'observe' | 'wait';
  schemaVersion: number | null;
  detail: string;
}

/** Whether pg-boss's registry is there to be read. */
export function hasRegistry({ mode, schemaVersion }: GateState): boolean {
  return mode !== 'wait' && (schemaVersion ?? 0) >= SUPPORTED_SCHEMAS.oldest;
}

/** Pure: what a schema version allows, with the client that there is. */
export function decideGate(
  schemaVersion: number | null,
  release: Pick<PgBossRelease, 'version' | 'schemaVersion' | 'location'>,
): GateState {
  const { oldest, newest } = SUPPORTED_SCHEMAS;
  if (schemaVersion === null)
    return { mode: 'wait', schemaVersion, detail: "pg-boss is not installed yet: the application's first start does that" };
  if (schemaVersion < oldest) {
    return {
      mode: 'observe',
      schemaVersion,
      detail: `pg-boss schema ${schemaVersion} is older than ${oldest} (pg-boss 12.36): upgrade pg-boss; until then nothing is changed`,
    };
  }
  if (schemaVersion > newest) {
    return {
      mode: 'observe',
      schemaVersion,
      detail: `pg-boss schema ${schemaVersion} is newer than ${newest}, the newest that this reclaimd was tested with: upgrade reclaimd; until then nothing is changed`,
    };
  }
  if (schemaVersion !== release.schemaVersion) {
    return {
      mode: 'observe',
      schemaVersion,
      detail: `pg-boss schema ${schemaVersion} needs its own release, but ${describeRelease(release)}; until then nothing is changed`,
    };
  }
  return { mode: 'act', schemaVersion, detail: `pg-boss schema ${schemaVersion}, client ${release.version}` };
}

function describeRelease({ version, schemaVersion, location }: Pick<PgBossRelease, 'version' | 'schemaVersion' | 'location'>): string {
  const speaks = `pg-boss ${version} speaks ${schemaVersion}`;
  return location === undefined
    ? `${speaks}: point RECLAIMD_PGBOSS_MODULE at the application's pg-boss`
    : `${speaks}, which is what RECLAIMD_PGBOSS_MODULE has in ${location}: install the application's release there, or name its place`;
}

/** pg-boss was upgraded (or taken back) since its client was opened: whatever was about to be changed is left alone. */
export class PgBossMoved extends Error {
  override readonly name = 'PgBossMoved';
}

/**
 * To be asked within the transaction that changes jobs, once their rows are locked: an upgrade changes their tables, so it
 * waits for us, or we have waited for it and read what it wrote.
 */
export async function assertNotMoved(sql: Sql, quotedSchema: string, { version, schemaVersion }: PgBossRelease): Promise<void> {
  const now = await readSchemaVersion(sql, quotedSchema);
  if (now === schemaVersion) return;
  throw new PgBossMoved(`pg-boss's schema is ${now ?? 'gone'} by now, and pg-boss ${version} speaks ${schemaVersion}: nothing was changed`);
}

/** Reads pg-boss's schema version without its client, which refuses to start on any other than its own. */
export async function readSchemaVersion(sql: Sql, quotedSchema: string): Promise<number | null> {
  try {
    const [row] = await sql.query<{ version: number }>(`SELECT version::int AS version FROM ${quotedSchema}.version`);
    return row?.version ?? null;
  } catch (error) {
    if (error instanceof UndefinedObject) return null;
    throw error;
  }
}
