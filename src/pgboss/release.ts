import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { createRequire, registerHooks } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type * as pgboss from 'pg-boss';

/** The part of a pg-boss release that we use. */
export type PgBossModule = Pick<typeof pgboss, 'PgBoss'>;

export interface PgBossRelease {
  version: string;
  /** The only schema version that this release's client starts on. */
  schemaVersion: number;
  /** Where it was asked for; undefined: our own. */
  location?: string;
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
}

/**
 * Our own pg-boss, or the application's as it lies there now.
 * @param location a directory: the pg-boss package itself, or an application that has it installed.
 */
export function findRelease(location: string | undefined): PgBossRelease {
  const entry = location === undefined ? createRequire(import.meta.url).resolve('pg-boss') : resolveEntry(location);
  const manifest = nearestManifest(entry);
  const schemaVersion = manifest.pgboss?.schema;
  const { version } = manifest;
  if (typeof schemaVersion !== 'number' || version === undefined) {
    throw new PgBossModuleUnusable(`${entry} is not a pg-boss release: its package.json names no schema version`);
  }
  if (location === undefined) return { version, schemaVersion, load: () => import(pathToFileURL(entry).href) as Promise<PgBossModule> };
  return { version, schemaVersion, location, load: () => importAs(version, entry) };
}

/** For a schema that `current` does not speak: the application's as it lies there now, or else our own; `current` where neither does. */
export function findReleaseFor(schemaVersion: number, current: PgBossRelease, location: string | undefined): PgBossRelease {
  return (
    [tryFind(location), tryFind(undefined)].find((release) => release?.schemaVersion === schemaVersion) ?? tryFind(location) ?? current
  );
}

/** Nothing where an installation is under way. */
function tryFind(location: string | undefined): PgBossRelease | undefined {
  try {
    return findRelease(location);
  } catch (error) {
    if (error instanceof PgBossModuleUnusable) return undefined;
    throw error;
  }
}

/** Looked up by hand: Node's own resolution remembers, and an application is upgraded in its place. */
function resolveEntry(location: string): string {
  const directory = resolve(location);
  if (existsSync(directory) && !statSync(directory).isDirectory()) return directory;
  const home = readManifest(directory)?.pgboss ? directory : findInstalled(directory);
  const manifest = home === undefined ? undefined : readManifest(home);
  if (home === undefined || !manifest) {
    throw new PgBossModuleUnusable(
      `no pg-boss at ${location}: give the directory of the pg-boss package, or of an application that has it installed`,
    );
  }
  return join(realpathSync(home), manifest.main ?? 'dist/index.js');
}

function findInstalled(application: string): string | undefined {
  for (let directory = application; ; directory = dirname(directory)) {
    const home = join(directory, 'node_modules', 'pg-boss');
    if (existsSync(join(home, 'package.json'))) return home;
    if (directory === dirname(directory)) return undefined;
  }
}

function readManifest(directory: string): Manifest | undefined {
  try {
    return JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest;
  } catch {
    return undefined;
  }
}

function nearestManifest(entry: string): Manifest {
  for (let directory = dirname(entry); ; directory = dirname(directory)) {
    const manifest = readManifest(directory);
    if (manifest) return manifest;
    if (directory === dirname(directory)) throw new PgBossModuleUnusable(`${entry} belongs to no package`);
  }
}

const MARK = '?reclaimd=';
let marking = false;

/**
 * A file is loaded once, so that a release that took another's place would be that other still. The version becomes part of
 * the URL, of the entry and of whatever it imports of its own package.
 */
function importAs(version: string, entry: string): Promise<PgBossModule> {
  if (!marking) registerHooks({ resolve: markImports });
  marking = true;
  return import(`${pathToFileURL(entry).href}${MARK}${encodeURIComponent(version)}`) as Promise<PgBossModule>;
}

const markImports: Parameters<typeof registerHooks>[0]['resolve'] = (specifier, context, nextResolve) => {
  const found = nextResolve(specifier, context);
  const mark = context.parentURL?.lastIndexOf(MARK) ?? -1;
  return mark >= 0 && specifier.startsWith('.') ? { ...found, url: `${found.url}${context.parentURL?.slice(mark)}` } : found;
};
