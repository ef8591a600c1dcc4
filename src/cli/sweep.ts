import type { Recovered } from '../actions/rescue.ts';
import { type SweepDependencies, type SweepReport, sweep } from '../recovery/sweep.ts';
import { EXIT, refused, type Surroundings, withActingContext } from './command.ts';
import { describeRestraints, takeOverSigns } from './look.ts';
import { printJson, table } from './output.ts';
import { whyDenied } from './rights.ts';

interface SweepCommand {
  json?: true;
  dryRun?: true;
  executor?: string;
  actor: string;
}

/** What a sweep would do now, orphan by orphan; changes nothing. */
export function orphans(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  return withActingContext(surroundings, async (context) => {
    await takeOverSigns(context);
    const { recovered, restraints } = await sweepOnce(context.sweepDependencies(null, true));
    if (options.json) return printJson(surroundings, { orphans: recovered, restraints });
    surroundings.out(describeOrphans(recovered));
    for (const line of describeRestraints(restraints)) surroundings.out(line);
  });
}

export function runSweep(surroundings: Surroundings, { actor, executor, json, dryRun: wanted }: SweepCommand): Promise<number> {
  return withActingContext(surroundings, async (context) => {
    // RECLAIMD_DRY_RUN makes every sweep one.
    const dryRun = wanted === true || context.config.dryRun;
    const wish = { actor, action: 'sweep', resource: { kind: 'fleet' }, target: executor ?? 'fleet' } as const;
    const denial = dryRun ? undefined : await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial, json);
    await takeOverSigns(context);
    const report = await sweepOnce(context.sweepDependencies(null, dryRun, actor), executor);
    if (executor !== undefined && !report.executors.some(({ id }) => id === executor))
      throw new Error(`no such executor: ${executor}; see \`reclaimd executors\``);
    const { restarted, failed, discarded, held, skipped, recovered, restraints } = report;
    const result = { restarted, failed, discarded, held, skipped };
    if (json) printJson(surroundings, { dryRun, ...result, ...(dryRun ? { orphans: recovered } : {}), restraints });
    else {
      if (dryRun) surroundings.out(describeOrphans(recovered));
      surroundings.out(
        `${dryRun ? 'would be: ' : ''}restarted ${restarted}, failed ${failed}, discarded ${discarded}, held ${held}, skipped ${skipped}`,
      );
      for (const line of describeRestraints(restraints)) surroundings.out(line);
    }
    return EXIT.done;
  });
}

async function sweepOnce(dependencies: SweepDependencies, executorId?: string): Promise<SweepReport & { recovered: Recovered[] }> {
  const recovered: Recovered[] = [];
  const report = await sweep(dependencies, {
    ...(executorId === undefined ? {} : { executorIds: [executorId] }),
    onBatch: (result) => recovered.push(...result.recovered),
  });
  return { ...report, recovered };
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
