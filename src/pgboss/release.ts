import { readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type * as pgboss from 'pg-boss';

/** The part of a pg-boss release that we use. */
export type PgBossModule = Pick<typeof pgboss, 'PgBoss'>;

export interface PgBossRelease {
  version: string;
  /** The only schema version that this release's client starts on. */
  schemaVersion: number;
  load(): Promise<PgBossModule>;
}

/** The given module is not a pg-boss that we can use. */
export class PgBossModuleUnusable extends Error {
  override readonly name = 'PgBossModuleUnusable';
}

interface Manifest {
  name?: string;
  version?: string;
  pgboss?: { schema?: number };
  main?: string;
  exports?: unknown;
}

/**
 * Our own pg-boss, or the application's.
 * @param location a directory: the pg-boss package itself, or an application that has it installed.
 */
export function findRelease(location: string | undefined): PgBossRelease {
  const entry = location === undefined ? createRequire(import.meta.url).resolve('pg-boss') : resolveEntry(location);
  const { manifest } = nearestManifest(entry);
  const schemaVersion = manifest.pgboss?.schema;
  if (typeof schemaVersion !== 'number' || manifest.version === undefined) {
    throw new PgBossModuleUnusable(`${entry} is not a pg-boss release: its package.json names no schema version`);
  }
  return { version: manifest.version, schemaVersion, load: () => import(pathToFileURL(entry).href) as Promise<PgBossModule> };
}

function resolveEntry(location: string): string {
  const directory = resolve(location);
  try {
    if (!statSync(directory).isDirectory()) return directory;
    const manifest = readManifest(directory);
    // A package may require itself by name only when it says what it exports.
    const from = manifest?.pgboss ? join(directory, 'package.json') : join(directory, 'index.js');
    return manifest?.pgboss ? join(directory, manifest.main ?? 'dist/index.js') : createRequire(from).resolve('pg-boss');
  } catch (cause) {
    throw new PgBossModuleUnusable(
      `no pg-boss at ${location}: give the directory of the pg-boss package, or of an application that has it installed`,
      { cause },
    );
  }
}

function readManifest(directory: string): Manifest | undefined {
  try {
    return JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest;
  } catch {
    return undefined;
  }
}

function nearestManifest(entry: string): { manifest: Manifest } {
  for (let directory = dirname(entry); ; directory = dirname(directory)) {
    const manifest = readManifest(directory);
    if (manifest) return { manifest };
    if (directory === dirname(directory)) throw new PgBossModuleUnusable(`${entry} belongs to no package`);
  }
}
