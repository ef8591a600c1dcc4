import pg from 'pg';

/** Queues whose workers are woken meanwhile. */
export async function wokenBy(url: string, work: () => Promise<unknown>): Promise<(string | undefined)[]> {
  const listener = new pg.Client({ connectionString: url });
  await listener.connect();
  const heard: (string | undefined)[] = [];
  listener.on('notification', ({ payload }) => heard.push(payload));
  const { rows } = await listener.query<{ channel: string }>(
    `SELECT 'pgboss_' || left(encode(sha224('pgboss'::bytea), 'hex'), 24) AS channel`,
  );
  await listener.query(`LISTEN ${rows[0]?.channel}`);
  await work();
  await listener.query('SELECT 1');
  await listener.end();
  return heard;
}
