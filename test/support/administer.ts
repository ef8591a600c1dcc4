import pg from 'pg';

let session: { url: string; pool: pg.Pool } | undefined;

/** A statement on the server's own database: over one session for all tests of a process, which keeps no process running. */
export async function administer(url: string, statement: string): Promise<void> {
  if (session?.url !== url) {
    session = { url, pool: new pg.Pool({ connectionString: url, max: 1, allowExitOnIdle: true }) };
    session.pool.on('error', () => undefined);
  }
  await session.pool.query(statement);
}
