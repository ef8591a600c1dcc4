import { awaitCommand } from '../commands/caller.ts';
import { saveCommand } from '../commands/queries.ts';
import type { Context } from '../context.ts';
import { createAllowlist } from '../healing/allowlist.ts';
import {
  type HealDependencies,
  type HealEvent,
  type HealListener,
  type HealSummary,
  healAll,
  listBroken,
  summary,
} from '../healing/heal.ts';
import { PLAIN, parseUnitTarget, TAKE_WITHIN_SECONDS } from '../repairs/unit-repair.ts';
import { completeUnitName } from '../runtime/unit-name.ts';
import { EXIT, requireUnits, type Surroundings, withReadyContext } from './command.ts';
import { oneLine } from './output.ts';
import { whyDenied } from './rights.ts';
import { UsageError } from './usage-error.ts';

export interface HealOptions {
  actor: string;
  reason?: string;
  json?: true;
}

interface Target {
  node: string;
  unit: string;
}

/** Heals the named units, of whatever node, or all of this host that need it; events as they happen, then one line that sums up. */
export function heal(surroundings: Surroundings, names: readonly string[], options: HealOptions): Promise<number> {
  return withReadyContext(surroundings, (context) => runHeal(surroundings, context, names, options));
}

export async function runHeal(
  surroundings: Pick<Surroundings, 'out'> & Partial<Pick<Surroundings, 'signal'>>,
  context: Context,
  names: readonly string[],
  options: HealOptions,
): Promise<number> {
  const { config, database } = context;
  if (config.dryRun) throw new UsageError('RECLAIMD_DRY_RUN is set: nothing is healed; `reclaimd units` shows what is broken');
  const emit = (event: HealEvent) => {
    if (options.json) surroundings.out(JSON.stringify(event));
    else if (event.unit !== null && event.phase !== 'left_alone')
      surroundings.out(oneLine(`${labelOf(event)}: ${event.phase}${event.error === undefined ? '' : `: ${event.error}`}`));
  };
  const labelOf = ({ node, unit }: HealEvent) => (node === config.node ? unit : `${node}:${unit}`);
  const isHere = ({ node }: Target) => node === config.node;
  const targets = await Promise.all(names.map((name) => parseUnitTarget(database, name, config.node)));
  let wanted: Target[];
  try {
    wanted = names.length > 0 ? (await Promise.all(targets.map((target) => expand(context, target)))).flat() : await listHere(context);
  } catch (error) {
    // Who reads a line for each event hears of this one, too.
    if (!options.json || error instanceof UsageError) throw error;
    emit({ phase: 'failed', node: config.node, unit: null, error: error instanceof Error ? error.message : String(error) });
    emit({ phase: 'done', node: config.node, unit: null });
    return EXIT.failed;
  }
  const { allowed, denied } = await sortByRight(context, wanted, options, emit);
  const here = allowed.filter(isHere).map(({ unit }) => unit);
  const results = await Promise.all([
    here.length > 0 ? healHere(requireUnits(context), here, options, emit, surroundings.signal) : undefined,
    ...allowed.filter((target) => !isHere(target)).map((target) => healThere(context, target, options, emit, surroundings.signal)),
  ]);
  const result = merge([...results.filter((one) => one !== undefined), { ...NOTHING, refused: denied }]);
  if (options.json) emit({ phase: 'done', node: config.node, unit: null });
  else surroundings.out(summary(result));
  return exitCodeOf(result);
}

/** An alias stands for its unit, here as there: the right is asked on that one. */
async function nameUnit(context: Context, { node, unit }: Target): Promise<Target> {
  const completed = completeUnitName(unit);
  const { units, allowlist } = requireUnits(context);
  return { node, unit: allowlist.allows(completed) ? ((await units.read(completed))?.unit ?? completed) : completed };
}

const NOTHING: HealSummary = { healed: [], failed: [], notNeeded: [], refused: [] };

async function listHere(context: Context): Promise<Target[]> {
  return (await listBroken(requireUnits(context))).map((unit) => ({ node: context.config.node, unit }));
}

/** A template stands for its instances: here for those that are broken. Which ones another node has only that node knows. */
async function expand(context: Context, target: Target): Promise<Target[]> {
  const { node, unit } = target;
  if (node !== context.config.node) return [target];
  if (!isTemplate(unit)) return [await nameUnit(context, target)];
  const isInstance = createAllowlist([completeUnitName(unit)]).allows;
  const instances = (await requireUnits(context).detector.detect({ fresh: true })).units.filter((seen) => isInstance(seen.unit));
  if (instances.length === 0) return [target];
  return instances.filter(({ condition }) => condition !== null).map((seen) => ({ node, unit: seen.unit }));
}

const isTemplate = (unit: string) => unit.endsWith('@.service');

/** Why nothing is meant by it that could be healed; a unit's own name may hold a colon. */
function whyMeaningless({ config }: Context, { node, unit }: Target): string | undefined {
  if (node !== config.node) return undefined;
  if (isTemplate(unit)) return `no instance of ${unit} is known among the units of RECLAIMD_UNITS`;
  const colon = unit.indexOf(':');
  if (colon <= 0 || createAllowlist(config.units).allows(unit)) return undefined;
  return `there is no node ${unit.slice(0, colon)} (see \`reclaimd status\`), and no unit of that name in RECLAIMD_UNITS`;
}

/** The end of all is told once, for every node together. */
function healHere(
  dependencies: HealDependencies,
  units: readonly string[],
  options: HealOptions,
  emit: HealListener,
  signal: AbortSignal | undefined,
): Promise<HealSummary> {
  const healer = { actor: options.actor, automatic: false, reason: options.reason ?? null };
  return healAll(dependencies, healer, (event) => event.phase !== 'done' && emit(event), units, signal);
}

/** Left to the daemon of that node, within its own limits. */
async function healThere(
  context: Context,
  { node, unit }: Target,
  options: HealOptions,
  emit: HealListener,
  signal: AbortSignal | undefined,
): Promise<HealSummary> {
  const { database } = context;
  const request = { ...PLAIN, node, action: 'unit_heal', unit, actor: options.actor, reason: options.reason ?? null } as const;
  const id = await database.transaction((tx) => saveCommand(tx, request, TAKE_WITHIN_SECONDS));
  let told: string | undefined;
  const onEvent = (event: HealEvent) => {
    told = event.phase;
    emit(event);
  };
  const command = await awaitCommand<HealEvent>({ ...context, node: context.config.node }, id, { onEvent, signal });
  const name = `${node}:${unit}`;
  const goesOn = `it goes on at ${node}: \`reclaimd audit list\` will say what it did`;
  const why = command.outcome === null ? goesOn : (command.error ?? 'nobody can tell');
  if (command.outcome === 'done') return { ...NOTHING, healed: [name] };
  if (command.outcome === 'not_needed') return { ...NOTHING, notNeeded: [{ unit: name, why }] };
  if (told !== 'failed') emit({ phase: 'failed', node, unit, error: why });
  return command.outcome === 'refused'
    ? { ...NOTHING, refused: [{ unit: name, why }] }
    : { ...NOTHING, failed: [{ unit: name, error: why }] };
}

async function sortByRight(context: Context, targets: readonly Target[], { actor, reason }: HealOptions, emit: HealListener) {
  const allowed: Target[] = [];
  const denied: HealSummary['refused'] = [];
  for (const { node, unit } of targets) {
    const target = `${node}:${unit}`;
    const wish = { actor, action: 'unit_heal', reason, resource: { kind: 'unit', node, name: unit }, target } as const;
    const why = whyMeaningless(context, { node, unit }) ?? (await whyDenied(context, wish));
    if (why === undefined) allowed.push({ node, unit });
    else {
      emit({ phase: 'failed', node, unit, error: why });
      denied.push({ unit: node === context.config.node ? unit : target, why });
    }
  }
  return { allowed, denied };
}

function merge(results: readonly HealSummary[]): HealSummary {
  return {
    healed: results.flatMap(({ healed }) => healed),
    failed: results.flatMap(({ failed }) => failed),
    notNeeded: results.flatMap(({ notNeeded }) => notNeeded),
    refused: results.flatMap(({ refused }) => refused),
  };
}

function exitCodeOf({ failed, refused }: HealSummary): number {
  if (failed.length > 0) return EXIT.failed;
  return refused.length > 0 ? EXIT.refused : EXIT.done;
}
