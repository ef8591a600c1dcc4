import { reconcileWorkflows } from '../workflows/reconcile.ts';
import { settleFlows } from '../workflows/stuck-flows.ts';
import { EXIT, refused, type Surroundings, withActingContext } from './command.ts';
import { printJson } from './output.ts';
import { whyDenied } from './rights.ts';

interface ReconcileCommand {
  json?: true;
  dryRun?: true;
  actor: string;
}

/** One pass over workflows now: missed events told again, stuck flows settled by policy. */
export function reconcile(surroundings: Surroundings, { actor, json, dryRun: wanted }: ReconcileCommand): Promise<number> {
  return withActingContext(surroundings, async (context) => {
    const dryRun = wanted === true || context.config.dryRun;
    const wish = { actor, action: 'reconcile', resource: { kind: 'fleet' }, target: 'fleet' } as const;
    const denial = dryRun ? undefined : await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial);
    const steps = await reconcileWorkflows(context.reconcileDependencies(), context.scope, { dryRun });
    const settled = await settleFlows(context.flowDependencies(dryRun, actor));
    const { replayed, skipped, events, unpublished } = steps;
    const { resolved, retried, cancelled, unresolved, failures } = settled;
    const flows = { stuck: settled.flows.length, unresolved, resolved, retried, cancelled, failures: failures.map(String) };
    if (json) printJson(surroundings, { dryRun, replayed, skipped, unpublished, events, flows });
    else {
      surroundings.out(`${dryRun ? 'would be: ' : ''}replayed ${replayed}, skipped ${skipped}`);
      for (const { instanceId, step, outcome, replay } of events) surroundings.out(`  ${instanceId}/${step}: ${outcome}, replay ${replay}`);
      surroundings.out(
        `${dryRun ? 'would be: ' : ''}flows: stuck ${flows.stuck}, unresolved ${unresolved}, resolved ${resolved}, parents retried ${retried}, jobs cancelled ${cancelled}`,
      );
    }
    if (!json) for (const failure of flows.failures) surroundings.out(`not settled: ${failure}`);
    return unpublished + failures.length > 0 ? EXIT.failed : EXIT.done;
  });
}
