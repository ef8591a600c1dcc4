import { reconcileWorkflows } from '../../src/workflows/reconcile.ts';
import { trackStep } from '../../src/workflows/tracking.ts';
import { completeAttempt } from './complete.ts';
import { type BossOptions, createFleetDatabase } from './database.ts';
import { openTestContext } from './executor.ts';

const NO_SCOPE = { stack: null, env: null };
/** Replays without waiting for an engine that is only slow. */
export const QUICK = { RECLAIMD_REPLAY_AFTER: '0s', RECLAIMD_RECONCILE_INTERVAL: '500ms' };

/** Steps of engines that miss what becomes of their jobs, and the pass that tells them. */
export async function createSteps(env: Record<string, string> = QUICK, options: BossOptions & { reclaimdSchema?: string } = {}) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'step' }, { name: 'heard' }], ...options });
  const { boss, database, url } = fleet;
  const context = await openTestContext(url, env);
  const reconcile = (scope = NO_SCOPE as { stack: string | null; env: string | null }, options = {}) =>
    reconcileWorkflows(context.reconcileDependencies(), scope, options);

  /** A step whose job has come to this end without its engine hearing of it. */
  async function missed(
    instanceId: string,
    end: 'completed' | 'failed' | 'cancelled' | 'created' = 'completed',
    where = {},
  ): Promise<string> {
    const jobId = (await boss.send('step', {}, { retryLimit: 0 })) ?? '';
    await trackStep(database, { instanceId, step: 'one', queue: 'step', jobId, workflow: 'w', ...where }, context.config.schema);
    if (end === 'cancelled') await boss.cancel('step', jobId);
    if (end === 'completed' || end === 'failed') {
      const [job] = await boss.fetch('step', { includeMetadata: true });
      if (job?.id !== jobId) throw new Error('another job was fetched');
      if (end === 'completed') await completeAttempt(boss, 'step', job);
      else await boss.fail('step', jobId);
    }
    return jobId;
  }
  const pass = (seconds: number) =>
    database.query(
      `UPDATE workflow_step SET next_replay_at = next_replay_at - make_interval(secs => $1), missing_since = missing_since - make_interval(secs => $1)`,
      [seconds],
    );
  return { ...fleet, context, reconcile, missed, pass };
}
