import type { Context } from '../context.ts';
import { findAliases } from '../healing/aliases.ts';
import { describeBudget } from '../healing/budget.ts';
import { readBudgets } from '../healing/budgets.ts';
import { detect, type UnitHealth } from '../healing/detect.ts';
import { enrich } from '../healing/enrich.ts';
import type { HealDependencies } from '../healing/heal.ts';
import { countRestarts } from '../healing/queries.ts';
import { type Surroundings, withUnits } from './command.ts';
import { type Cell, type Colour, printJson, table } from './output.ts';

/** The units of the allowlist on this host: state, what is wrong with them, last words, what healing has left. */
export async function units(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  await withUnits(surroundings, (context, dependencies) => showUnits(surroundings, context, dependencies, options));
}

export async function showUnits(
  surroundings: Pick<Surroundings, 'out'>,
  { config, database, clock }: Context,
  dependencies: HealDependencies,
  options: { json?: true },
): Promise<void> {
  const { journal, host, node, limits } = dependencies;
  const detection = await detect(dependencies, { fresh: true });
  const lastErrors = await enrich(
    detection.units.filter(({ condition, activeState }) => condition !== null || activeState === 'failed'),
    { journal, clock },
  );
  const budgets = await readBudgets(database, host, limits);
  const restarts = await countRestarts(database, host, config.flapWindowMs / 1000);
  const shown = detection.units.map((health) => ({
    unit: health.unit,
    state: health.activeState,
    subState: health.subState,
    result: health.result,
    exitCode: health.exitCode ?? null,
    exitStatus: health.exitStatus,
    restarts: health.restarts,
    recentRestarts: restarts.get(health.unit) ?? 0,
    condition: health.condition,
    flapping: (restarts.get(health.unit) ?? 0) >= config.flapRestarts,
    reason: health.reason,
    withheld: health.withheld,
    invocation: health.invocationId,
    mainPid: health.mainPid,
    heals: budgets.get(health.unit)?.heals ?? 0,
    breaker: budgets.get(health.unit)?.breaker ?? 'closed',
    lastError: lastErrors.get(health.unit) ?? null,
  }));
  const aliases = await findAliases(dependencies.units, config);
  if (options.json) return printJson(surroundings, { node, host, ageMs: Math.round(detection.ageMs), units: shown, aliases });
  for (const alias of aliases) surroundings.out(alias);
  if (shown.length === 0)
    return surroundings.out(
      config.units.length === 0 ? 'no unit is allowed: RECLAIMD_UNITS is empty' : 'no unit of RECLAIMD_UNITS is known here',
    );
  const rows = detection.units.map((health, index): Cell[] => {
    const { recentRestarts, heals, breaker, lastError } = shown[index] as (typeof shown)[number];
    const budget = budgets.get(health.unit);
    const healing = breaker === 'open' && budget ? describeBudget(budget) : heals > 0 ? `${heals} of ${limits.maxHeals} heals tried` : '';
    return [
      health.unit,
      { text: health.activeState, colour: colourOf(health) },
      sayOf(health),
      String(recentRestarts),
      healing,
      lastError ?? '',
    ];
  });
  surroundings.out(table(['UNIT', 'STATE', 'WHY', 'RESTARTS', 'HEALING', 'LAST ERROR'], rows));
}

const sayOf = ({ condition, reason, withheld }: UnitHealth) =>
  `${condition === 'start_limit_hit' ? 'start limit hit: ' : ''}${reason}${condition === null || withheld === null ? '' : ` (left to you: ${withheld})`}`;

const colourOf = ({ condition, activeState }: UnitHealth): Colour =>
  condition === null ? (activeState === 'active' ? 'green' : 'dim') : condition === 'stopped' ? 'yellow' : 'red';
