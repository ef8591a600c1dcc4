import type { Context } from '../context.ts';
import { completeUnitName } from '../healing/allowlist.ts';
import { type HealDependencies, type HealEvent, type HealSummary, healAll, listBroken, summary } from '../healing/heal.ts';
import { EXIT, type Surroundings, withUnits } from './command.ts';
import { whyDenied } from './rights.ts';
import { UsageError } from './usage-error.ts';

export interface HealOptions {
  actor: string;
  reason?: string;
  json?: true;
}

/** Heals the named units of this host, or all that need it; events as they happen, then one line that sums up. */
export async function heal(surroundings: Surroundings, names: readonly string[], options: HealOptions): Promise<number> {
  return withUnits(surroundings, (context, dependencies) => runHeal(surroundings, context, dependencies, names, options));
}

export async function runHeal(
  surroundings: Pick<Surroundings, 'out'>,
  context: Context,
  dependencies: HealDependencies,
  names: readonly string[],
  options: HealOptions,
): Promise<number> {
  const { config } = context;
  if (config.dryRun) throw new UsageError('RECLAIMD_DRY_RUN is set: nothing is healed; `reclaimd units` shows what is broken');
  const named = names.length > 0 ? names.map((name) => ofThisNode(name, config.node)) : undefined;
  const emit = (event: HealEvent) => {
    if (options.json) surroundings.out(JSON.stringify(event));
    else if (event.unit !== null) surroundings.out(`${event.unit}: ${event.phase}${event.error === undefined ? '' : `: ${event.error}`}`);
  };
  const healer = { actor: options.actor, automatic: false, reason: options.reason ?? null };
  const denied: HealSummary['refused'] = [];
  const allowed: string[] = [];
  for (const unit of named ?? (await listBroken(dependencies))) {
    const wish = { actor: options.actor, action: 'unit_heal', reason: options.reason } as const;
    const why = await whyDenied(context, {
      ...wish,
      resource: { kind: 'unit', node: config.node, name: unit },
      target: `${config.node}:${unit}`,
    });
    if (why === undefined) allowed.push(unit);
    else {
      emit({ phase: 'failed', node: config.node, unit, error: why });
      denied.push({ unit, why });
    }
  }
  const healed = await healAll(dependencies, healer, emit, allowed);
  const result = { ...healed, refused: [...denied, ...healed.refused] };
  if (!options.json) surroundings.out(summary(result));
  return exitCodeOf(result);
}

function exitCodeOf({ failed, refused }: HealSummary): number {
  if (failed.length > 0) return EXIT.failed;
  return refused.length > 0 ? EXIT.refused : EXIT.done;
}

/** `UNIT` or `NODE:UNIT`; a unit's own name may hold a colon, too. */
function ofThisNode(target: string, node: string): string {
  if (target.startsWith(`${node}:`)) return completeUnitName(target.slice(node.length + 1));
  return completeUnitName(target);
}
