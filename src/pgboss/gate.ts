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

/** Pure: what a schema version allows, with the client that there is. */
export function decideGate(schemaVersion: number | null, release: Pick<PgBossRelease, 'version' | 'schemaVersion'>): GateState {
  const { oldest, newest } = SUPPORTED_SCHEMAS;
  if (schemaVersion === null) return { mode: 'wait', schemaVersion, detail: 'pg-boss is not installed yet' };
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
      detail: `pg-boss schema ${schemaVersion} needs its own release, but pg-boss ${release.version} speaks ${release.schemaVersion}: point RECLAIMD_PGBOSS_MODULE at the application's pg-boss; until then nothing is changed`,
    };
  }
  return { mode: 'act', schemaVersion, detail: `pg-boss schema ${schemaVersion}, client ${release.version}` };
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
