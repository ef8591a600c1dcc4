import type { Config } from '../config.ts';
import { completeUnitName } from '../healing/allowlist.ts';
import { type HealDependencies, type HealEvent, type HealSummary, healAll, summary } from '../healing/heal.ts';
import { EXIT, type Surroundings, withUnits } from './command.ts';
import { UsageError } from './usage-error.ts';

export interface HealOptions {
  by: string;
  reason?: string;
  json?: true;
}

/** Heals the named units of this host, or all that need it; events as they happen, then one line that sums up. */
export async function heal(surroundings: Surroundings, names: readonly string[], options: HealOptions): Promise<number> {
  return withUnits(surroundings, ({ config }, dependencies) => runHeal(surroundings, config, dependencies, names, options));
}

export async function runHeal(
  surroundings: Pick<Surroundings, 'out'>,
  config: Pick<Config, 'dryRun' | 'node'>,
  dependencies: HealDependencies,
  names: readonly string[],
  options: HealOptions,
): Promise<number> {
  if (config.dryRun) throw new UsageError('RECLAIMD_DRY_RUN is set: nothing is healed; `reclaimd units` shows what is broken');
  const named = names.length > 0 ? names.map((name) => ofThisNode(name, config.node)) : undefined;
  const emit = (event: HealEvent) => {
    if (options.json) surroundings.out(JSON.stringify(event));
    else if (event.unit !== null) surroundings.out(`${event.unit}: ${event.phase}${event.error === undefined ? '' : `: ${event.error}`}`);
  };
  const healer = { actor: options.by, automatic: false, reason: options.reason ?? null };
  const result = await healAll(dependencies, healer, emit, named);
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
