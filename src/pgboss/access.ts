import type { PgBoss } from 'pg-boss';
import { type Database, quoteIdentifier, type Sql } from '../postgres/database.ts';
import type { Logger } from '../runtime/logger.ts';
import { startPassiveClient } from './client.ts';
import { assertNotMoved, decideGate, type GateState, readSchemaVersion } from './gate.ts';
import { findRelease, findReleaseFor, type PgBossRelease } from './release.ts';
import { catalogName } from './schema-name.ts';

interface Opened {
  release: PgBossRelease;
  client: PgBoss;
  supervisor: PgBoss | undefined;
}

interface AccessOptions {
  database: Database;
  /** The connections of supervision, where it is taken over. */
  patient: Database | undefined;
  schemaSpelling: string;
  /** Where the application has its pg-boss. */
  location: string | undefined;
  log: Logger;
}

/** The clients of the release that speaks the schema; another one's when the application has moved on. */
export function createPgBossAccess({ database, patient, schemaSpelling, location, log }: AccessOptions) {
  const quotedSchema = quoteIdentifier(catalogName(schemaSpelling));
  let release = findRelease(location);
  let opened: Opened | undefined;
  let isOutdated = false;
  let probing: Promise<GateState> | undefined;

  const boss = () => {
    if (!opened) throw new Error('pg-boss is not open: its schema was not probed');
    return opened;
  };

  async function look(): Promise<GateState> {
    const version = await readSchemaVersion(database, quotedSchema);
    if (version !== null && version !== release.schemaVersion) release = findReleaseFor(version, release, location);
    const gate = decideGate(version, release);
    if (gate.mode === 'act' && (isOutdated || opened?.release.schemaVersion !== release.schemaVersion)) {
      const before = opened;
      isOutdated = false;
      opened = {
        release,
        client: await startPassiveClient(release, { database, schemaSpelling, log }),
        supervisor: patient && (await startPassiveClient(release, { database: patient, schemaSpelling, log })),
      };
      // Not waited for: a pass of supervision that is under way there may be long.
      void stop(before);
    }
    return gate;
  }

  /** What pg-boss's schema allows now; opens the client when it may act. */
  function probe(): Promise<GateState> {
    probing ??= look().finally(() => {
      probing = undefined;
    });
    return probing;
  }

  return {
    get version() {
      return release.version;
    },
    probe,
    /** The client keeps what it knows of queues for a minute: one that is opened anew knows nothing old. */
    renewClient: (): void => {
      isOutdated = true;
      void probe().catch(() => undefined);
    },
    client: () => boss().client,
    supervisor: () => boss().supervisor ?? boss().client,
    /** Throws PgBossMoved where the schema is not the open client's any more. */
    assertNotMoved: (sql: Sql): Promise<void> => assertNotMoved(sql, quotedSchema, boss().release),
    close: () => stop(opened),
  };
}

async function stop(opened: Opened | undefined): Promise<void> {
  for (const each of [opened?.client, opened?.supervisor]) await each?.stop({ graceful: false, close: false }).catch(() => undefined);
}
