import type { Recovered } from '../actions/rescue.ts';
import { type SweepReport, sweep } from '../recovery/sweep.ts';
import { EXIT, type Surroundings, withReadyContext } from './command.ts';
import { printJson, table } from './output.ts';
import { UsageError } from './usage-error.ts';

/** `dryRun` in the result: RECLAIMD_DRY_RUN makes every sweep one. */
async function sweepOnce(
  surroundings: Surroundings,
  wanted: boolean,
  executorId?: string,
): Promise<SweepReport & { dryRun: boolean; recovered: Recovered[] }> {
  return withReadyContext(surroundings, async (context) => {
    const gate = await context.probePgBoss();
    if (gate.mode !== 'act') throw new UsageError(gate.detail);
    const dryRun = wanted || context.config.dryRun;
    const recovered: Recovered[] = [];
    const report = await sweep(context.sweepDependencies(null, dryRun), {
      ...(executorId === undefined ? {} : { executorIds: [executorId] }),
      onBatch: (result) => recovered.push(...result.recovered),
    });
    return { ...report, dryRun, recovered };
  });
}

/** What a sweep would do now, orphan by orphan; changes nothing. */
export async function orphans(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  const { recovered, restraints } = await sweepOnce(surroundings, true);
  if (options.json) {
    return printJson(surroundings, { orphans: recovered, restraints });
  }
  surroundings.out(describeOrphans(recovered));
  for (const line of describeRestraints(restraints)) surroundings.out(line);
}

export async function runSweep(surroundings: Surroundings, options: { json?: true; dryRun?: true; executor?: string }): Promise<number> {
  const { restarted, failed, discarded, held, skipped, recovered, restraints, dryRun } = await sweepOnce(
    surroundings,
    options.dryRun === true,
    options.executor,
  );
  const result = { restarted, failed, discarded, held, skipped };
  if (options.json) printJson(surroundings, { dryRun, ...result, restraints });
  else {
    if (dryRun) surroundings.out(describeOrphans(recovered));
    surroundings.out(
      `${dryRun ? 'would be: ' : ''}restarted ${restarted}, failed ${failed}, discarded ${discarded}, held ${held}, skipped ${skipped}`,
    );
    for (const line of describeRestraints(restraints)) surroundings.out(line);
  }
  return EXIT.done;
}

function describeOrphans(recovered: readonly Recovered[]): string {
  if (recovered.length === 0) return 'no orphans';
  return table(
    ['ORPHAN', 'ATTEMPT', 'EXECUTOR', 'VERDICT', 'POLICY', 'FROM', 'RECOVERIES', 'WHY'],
    recovered.map((orphan) => [
      `${orphan.queue}/${orphan.jobId}`,
      String(orphan.retryCount),
      orphan.executorId ?? 'unknown',
      orphan.verdict,
      orphan.poison ? `${orphan.policy} (poison)` : orphan.policy,
      orphan.resolved.source,
      String(orphan.recoveriesBefore),
      orphan.reason,
    ]),
  );
}

function describeRestraints(restraints: SweepReport['restraints']): string[] {
  return restraints.map(({ reason, executors }) => `held back (${reason.replaceAll('_', ' ')}): ${executors.join(', ')}`);
}
