import type { PgBoss } from 'pg-boss';
import type { Database } from '../../src/postgres/database.ts';
import { settleFlows } from '../../src/workflows/stuck-flows.ts';
import { completeAttempt } from './complete.ts';
import { type BossOptions, createFleetDatabase } from './database.ts';
import { openTestContext } from './executor.ts';

/** Queues of flows, a passive client's context as the daemon has it, and what a flow's parent can come to. */
export async function createFlows(env: Record<string, string> = {}, options: BossOptions = {}) {
  const queues = options.queues ?? [{ name: 'parent', retryLimit: 0 }, { name: 'child' }, { name: 'grandchild' }];
  const fleet = await createFleetDatabase({ ...options, queues });
  const context = await openTestContext(fleet.url, env);
  const { boss, database } = fleet;
  const settle = (dryRun = false) => settleFlows(context.flowDependencies(dryRun));
  return { ...fleet, context, settle, run: (queue: string, end: End) => runOne(boss, queue, end), stateOf };

  async function stateOf(jobId: string) {
    const [job] = await database.query<{ state: string; blocked: boolean; pending: number }>(
      'SELECT state::text, blocked, pending_dependencies AS pending FROM job WHERE id = $1',
      [jobId],
    );
    return job;
  }
}

export type End = 'complete' | 'fail' | 'cancel' | 'delete';

async function runOne(boss: PgBoss, queue: string, end: End): Promise<string> {
  const [job] = await boss.fetch(queue, { includeMetadata: true });
  if (!job) throw new Error(`nothing to fetch in ${queue}`);
  if (end === 'complete') await completeAttempt(boss, queue, job);
  if (end === 'fail') await boss.fail(queue, job.id, { message: 'no' });
  if (end === 'cancel') await boss.cancel(queue, job.id);
  if (end === 'delete') await boss.deleteJob(queue, job.id);
  return job.id;
}

/** parent <- child <- grandchild; by reference, the ids. */
export const chainOfThree = (boss: PgBoss) =>
  boss.flow([
    { ref: 'parent', name: 'parent', data: { secret: 'x' } },
    { ref: 'child', name: 'child', dependsOn: ['parent'] },
    { ref: 'grandchild', name: 'grandchild', dependsOn: ['child'] },
  ]);

/** A failed parent of `parent` with so many children, and so many of these with one of their own behind them; by SQL, for it is many. Its id. */
export async function addWideFlow(database: Database, children: number, grandchildren: number): Promise<string> {
  const [parent] = await database.query<{ id: string }>(
    `INSERT INTO job (name, state, blocking) VALUES ('parent', 'failed', true) RETURNING id`,
  );
  await database.query(
    `WITH child AS (INSERT INTO job (name, state, blocked, blocking, pending_dependencies)
       SELECT 'child', 'created', true, n <= $3, 1 FROM generate_series(1, $2) n RETURNING id)
     INSERT INTO job_dependency (child_name, child_id, parent_name, parent_id) SELECT 'child', id, 'parent', $1 FROM child`,
    [parent?.id, children, grandchildren],
  );
  await database.query(
    `WITH pair AS (SELECT id AS parent_id, gen_random_uuid() AS child_id FROM job WHERE name = 'child' AND blocking),
     child AS (INSERT INTO job (id, name, state, blocked, pending_dependencies) SELECT child_id, 'grandchild', 'created', true, 1 FROM pair)
     INSERT INTO job_dependency (child_name, child_id, parent_name, parent_id) SELECT 'grandchild', child_id, 'child', parent_id FROM pair`,
  );
  await database.query('ANALYZE job_common, job_dependency');
  return parent?.id ?? '';
}

/** So many failed parents of `parent`, each of which has all of the children; by SQL, for these are many dependencies. */
export async function addAllToAll(database: Database, parents: number, children: number): Promise<void> {
  await database.query(
    `WITH parent AS (INSERT INTO job (name, state, blocking, completed_on) SELECT 'parent', 'failed', true, now() FROM generate_series(1, $1) RETURNING id),
     child AS (INSERT INTO job (name, state, blocked, pending_dependencies) SELECT 'child', 'created', true, $1 FROM generate_series(1, $2) RETURNING id)
     INSERT INTO job_dependency (child_name, child_id, parent_name, parent_id) SELECT 'child', child.id, 'parent', parent.id FROM parent, child`,
    [parents, children],
  );
  await database.query('ANALYZE job_common, job_dependency');
}
