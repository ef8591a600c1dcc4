import { LEAST_REASON, readReason } from '../authorization/reason.ts';
import type { Context } from '../context.ts';
import { tellAgain } from '../workflows/again.ts';
import { reconcileWorkflows } from '../workflows/reconcile.ts';
import { settleFlows } from '../workflows/stuck-flows.ts';
import { EXIT, refused, type Surroundings, withActingContext } from './command.ts';
import { printJson } from './output.ts';
import { whyDenied } from './rights.ts';
import { UsageError } from './usage-error.ts';

export interface ReconcileCommand {
  json?: true;
  dryRun?: true;
  actor: string;
  again?: string;
  reason?: string;
}

/** One pass over workflows now: missed events told again, stuck flows settled by policy. */
export function reconcile(surroundings: Surroundings, command: ReconcileCommand): Promise<number> {
  const { actor, json, dryRun: wanted, again, reason } = command;
  if (reason !== undefined && again === undefined) throw new UsageError('--reason: it belongs to --again');
  return withActingContext(surroundings, async (context) => {
    if (again !== undefined) return tellStepAgain(surroundings, context, { ...command, again });
    const dryRun = wanted === true || context.config.dryRun;
    const wish = { actor, action: 'reconcile', resource: { kind: 'fleet' }, target: 'fleet' } as const;
    const denial = dryRun ? undefined : await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial, json);
    const steps = await reconcileWorkflows(context.reconcileDependencies(actor), context.scope, { dryRun });
    const settled = await settleFlows(context.flowDependencies(dryRun, actor), { whole: true });
    const { replayed, skipped, events, unpublished, unnotified } = steps;
    const { resolved, retried, cancelled, unresolved, complete, failures } = settled;
    const flows = { stuck: settled.flows.length, complete, unresolved, resolved, retried, cancelled, failures: failures.map(String) };
    const untold = steps.failures.map(String);
    if (json) printJson(surroundings, { dryRun, replayed, skipped, unpublished, unnotified, events, failures: untold, flows });
    else {
      surroundings.out(`${dryRun ? 'would be: ' : ''}replayed ${replayed}, skipped ${skipped}`);
      for (const { instanceId, step, outcome, replay } of events) surroundings.out(`  ${instanceId}/${step}: ${outcome}, replay ${replay}`);
      for (const failure of untold) surroundings.out(`  not told: ${failure}`);
      if (unpublished > 0) surroundings.out(`  ${unpublished} were not taken by a subscribed queue`);
      if (unnotified > 0) surroundings.out(`  ${unnotified} are too long for NOTIFY: shorten the names that their engine gives`);
      surroundings.out(
        `${dryRun ? 'would be: ' : ''}flows: stuck ${flows.stuck}, unresolved ${unresolved}, resolved ${resolved}, parents retried ${retried}, jobs cancelled ${cancelled}`,
      );
    }
    if (!json && !complete) surroundings.out('there are more stuck flows than one look takes in');
    if (!json) for (const failure of flows.failures) surroundings.out(`not settled: ${failure}`);
    return unpublished + unnotified + untold.length + failures.length > 0 ? EXIT.failed : EXIT.done;
  });
}

async function tellStepAgain(
  surroundings: Surroundings,
  context: Context,
  { again, reason, actor, json, dryRun }: ReconcileCommand & { again: string },
): Promise<number> {
  if (dryRun || context.config.dryRun) throw new UsageError('--again: a dry run changes nothing; `reclaimd workflows` shows the steps');
  const said = readReason(reason ?? '');
  if (said === undefined) throw new UsageError(`--reason: ${LEAST_REASON} characters or more are needed`);
  const wish = { actor, action: 'reconcile', resource: { kind: 'fleet' }, target: again, reason: said } as const;
  const denial = await whyDenied(context, wish);
  if (denial !== undefined) return refused(surroundings, denial, json);
  const told = await tellAgain(context.database, { step: again, actor, reason: said, node: context.config.node });
  if (!told.done) return refused(surroundings, told.why, json);
  if (json) printJson(surroundings, { again });
  else surroundings.out(`${again} gets its event anew, from the next pass on`);
  return EXIT.done;
}
