import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { onTestFinished } from 'vitest';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/postgres/embedded.ts';
import { binariesOfMajor } from './postgres-majors.ts';
import { waitFor } from './wait.ts';

/** A Postgres of the test's own, to be taken away and given back at the same address. */
export async function createPrivatePostgres() {
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-outage-'));
  const binaries = await binariesOfMajor(process.env['TEST_POSTGRES_MAJOR'] ?? '18');
  const settings = { fsync: 'off' };
  let server: EmbeddedPostgres | undefined = await startEmbeddedPostgres(directory, { binaries, settings });
  const { url } = server;
  onTestFinished(async () => {
    await server?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function start(port?: number): Promise<EmbeddedPostgres> {
    // After a kill its orphans hold the directory for a moment.
    server = await waitFor('Postgres to start again', () =>
      startEmbeddedPostgres(directory, { binaries, settings, ...(port ? { port } : {}) }).catch(() => undefined),
    );
    return server;
  }

  return {
    url,
    stop: async () => {
      await server?.stop();
      server = undefined;
    },
    kill: () => {
      server?.kill();
      server = undefined;
    },
    start: () => start(Number(new URL(url).port)),
    /** While it is away for everybody else: at another address, for these statements alone. */
    inTheDark: async (...statements: string[]) => {
      const hidden = await start();
      const client = new pg.Client({ connectionString: hidden.url });
      await client.connect();
      for (const statement of statements) await client.query(statement);
      await client.end();
      await hidden.stop();
      server = undefined;
    },
  };
}
