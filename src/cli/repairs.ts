import { createInterface } from 'node:readline/promises';
import { LEAST_REASON } from '../authorization/reason.ts';
import type { HealEvent } from '../healing/heal.ts';
import { DRY_RUN, executeRepair } from '../repairs/execute.ts';
import type { FlowPlan } from '../repairs/flow-plan.ts';
import type { RepairExecuted, TargetOutcome } from '../repairs/outcome.ts';
import type { RepairPlan } from '../repairs/plan.ts';
import { previewRepair, type RepairPreview, type RepairRefused } from '../repairs/preview.ts';
import type { UnitPlan } from '../repairs/unit-plan.ts';
import { quoteForShell } from '../runtime/shell.ts';
import { accountName } from './actor.ts';
import { EXIT, type Surroundings, withReadyContext } from './command.ts';
import { formatSeconds, oneLine, paint, printJson, table } from './output.ts';
import { UsageError } from './usage-error.ts';

export interface PreviewOptions {
  actor: string;
  policy?: string;
  json?: true;
}

/** Prints the plan and the token that executes it. */
export function preview(surroundings: Surroundings, action: string, targets: readonly string[], options: PreviewOptions): Promise<number> {
  const { actor, policy, json } = options;
  return withReadyContext(surroundings, async (context) => {
    const result = await previewRepair(context.repairDependencies(), { action, targets, policy, actor });
    if (json) printJson(surroundings, result);
    else surroundings.out(result.done ? describePreview(result, namedActor(surroundings, actor)) : describeRefusal(result));
    return !result.done || result.token === null ? EXIT.refused : EXIT.done;
  });
}

export interface ExecuteOptions {
  actor: string;
  reason?: string;
  json?: true;
}

/** Carries out what a preview showed. */
export function execute(surroundings: Surroundings, token: string, { actor, reason, json }: ExecuteOptions): Promise<number> {
  return withReadyContext(surroundings, async (context) => {
    const dependencies = context.repairDependencies();
    // Before a reason is asked for in vain.
    if (dependencies.dryRun) throw new UsageError(DRY_RUN);
    const given = reason ?? (await askReason(surroundings));
    const onEvent = (event: object) => surroundings.out(json ? JSON.stringify(event) : describeEvent(event as HealEvent));
    const result = await executeRepair(dependencies, { token, actor, reason: given, onEvent, signal: surroundings.signal });
    if (json) surroundings.out(JSON.stringify(result));
    else surroundings.out(result.done ? describeExecuted(result) : describeRefusal(result));
    if (!result.done) return EXIT.refused;
    return result.partial ? EXIT.failed : EXIT.done;
  });
}

/** Whoever was asked went away instead. */
class NoReasonGiven extends Error {
  override readonly name = 'NoReasonGiven';

  constructor(cause: unknown) {
    super('no reason was given: nothing was done, and the token is still good', { cause });
  }
}

async function askReason({ signal }: Surroundings): Promise<string> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) throw new UsageError('a reason is needed: --reason TEXT');
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await terminal.question(`Why (${LEAST_REASON} characters or more; it stays in the audit)? `, { signal });
  } catch (cause) {
    process.stderr.write('\n');
    throw new NoReasonGiven(cause);
  } finally {
    terminal.close();
  }
}

/** Only who asks under another name than their account's must say it again. */
const namedActor = ({ env }: Surroundings, actor: string): string | undefined => (actor === accountName(env) ? undefined : actor);

function describePreview({ token, number, expiresInSeconds, plan, cautions, denial }: RepairPreview, actor: string | undefined): string {
  const as = actor === undefined ? '' : ` --actor ${quoteForShell(actor)}`;
  const last =
    token === null
      ? oneLine(`you may look only: ${denial}`)
      : `preview ${number} is good for ${formatSeconds(expiresInSeconds)}, once, for you:\n  reclaimd execute ${token}${as} --reason '...'`;
  return [...describePlan(plan), ...cautions.map((text) => paint(`mind: ${text}`, 'yellow')), last].join('\n');
}

const describeEvent = ({ phase, node, unit, error }: HealEvent) =>
  oneLine(`${node}:${unit}: ${phase}${error === undefined ? '' : `: ${error}`}`);

function describeUnitPlan({ node, unit, command, before, after, warnings }: UnitPlan): string[] {
  const { activeState, subState, result } = before;
  return [
    table(['UNIT', 'NOW', 'RESULT', 'WHAT', 'AFTER'], [[`${node}:${unit}`, `${activeState} (${subState})`, result, command, after]]),
    ...warnings.map((text) => paint(`mind: ${text}`, 'yellow')),
  ];
}

function describeFlowPlan(action: string, { state, jobs, after, warnings }: FlowPlan): string[] {
  const now = action === 'workflow_retry_parent' ? (state ?? 'gone') : 'blocked';
  const rows = jobs.map((job) => [job, now, after]);
  return [table(['JOB', 'NOW', 'AFTER'], rows), ...warnings.map((text) => paint(`mind: ${text}`, 'yellow'))];
}

function describePlan({ action, executor, jobs, unit, flow, left, leftOut }: RepairPlan): string[] {
  const title = executor ? oneLine(`${action} ${executor.id}: ${executor.verdict}, ${executor.reason}`) : action;
  const ofUnit = unit ? describeUnitPlan(unit) : [];
  if (unit && jobs.length + leftOut.length === 0) return [title, ...ofUnit];
  if (flow) return [oneLine(`${title} ${flow.target}`), ...describeFlowPlan(action, flow)];
  const rows = jobs.map(({ target, before, after, policy }) => [
    target,
    `${before.state} (attempt ${before.retryCount})`,
    before.executor === null ? '-' : `${before.executor} (${before.verdict})`,
    policy === null ? '-' : `${policy} (${before.poison && before.policySource !== 'operator' ? 'poison' : before.policySource})`,
    after,
  ]);
  const warnings = [
    ...Map.groupBy(
      jobs.flatMap(({ target, warnings: some }) => some.map((text) => ({ target, text }))),
      ({ text }) => text,
    ),
  ];
  return [
    title,
    ...ofUnit,
    ...(rows.length === 0 ? [] : [table(['JOB', 'NOW', 'EXECUTOR', 'POLICY', 'AFTER'], rows)]),
    ...warnings.map(([text, some]) => paint(`mind: ${text}${jobs.length > 1 ? ` (${some.length} of ${jobs.length})` : ''}`, 'yellow')),
    ...(left > 0 ? [paint(`mind: it holds ${left} more than one repair takes: preview it again afterwards`, 'yellow')] : []),
    ...leftOut.map(({ target, why }) => oneLine(`left out: ${target}: ${why}`)),
  ];
}

function describeRefusal({ message, targets = [] }: RepairRefused): string {
  return [
    oneLine(`refused: ${message}`),
    ...(targets.length > 1 ? targets.map(({ target, why }) => oneLine(`  ${target}: ${why}`)) : []),
  ].join('\n');
}

function outcomeOf(one: TargetOutcome): string {
  if (one.outcome === 'done') return oneLine(one.state);
  return one.outcome === 'drifted' ? paint(`left alone: ${one.drift}`, 'yellow') : paint(`${one.outcome}: ${one.error}`, 'red');
}

function describeExecuted({ action, targets, left = 0 }: RepairExecuted): string {
  const done = targets.filter(({ outcome }) => outcome === 'done').length;
  const lines = targets.map((one) => `${oneLine(one.target)}: ${outcomeOf(one)}`);
  const rest = left > 0 ? [paint(`it holds ${left} more: preview ${action} again`, 'yellow')] : [];
  return [...lines, `${action}: ${done} of ${targets.length} done`, ...rest].join('\n');
}
