import type { Sql } from '../postgres/database.ts';

/** How often each parent was acted upon without a person. */
export async function countActions(sql: Sql, queue: string, jobId: string, action: string): Promise<number> {
  const [row] = await sql.query<{ count: number }>(
    'SELECT count(*)::int AS count FROM workflow_action WHERE queue = $1 AND job_id = $2 AND action = $3',
    [queue, jobId, action],
  );
  return row?.count ?? 0;
}

export async function saveAction(tx: Sql, queue: string, jobId: string, action: string): Promise<void> {
  await tx.query('INSERT INTO workflow_action (queue, job_id, action) VALUES ($1, $2, $3)', [queue, jobId, action]);
}
