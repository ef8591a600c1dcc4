import type { Finding } from '../incidents/incident.ts';
import type { HealBudget } from './budget.ts';
import type { UnitHealth } from './detect.ts';

export interface UnitCircumstances {
  node: string;
  /** Last words by unit. */
  lastErrors: ReadonlyMap<string, string>;
  budgets: ReadonlyMap<string, HealBudget>;
  /** Restarts by systemd itself within the window, by unit. */
  restarts: ReadonlyMap<string, number>;
  flapRestarts: number;
  healStopped: boolean;
  /** Why nothing is healed here at all; null where it is. */
  healsNothing: string | null;
  /** Units that are being healed: their last chance is not over before it has failed. */
  healing: ReadonlySet<string>;
}

const isBreakerOpen = ({ budgets, healing }: UnitCircumstances, unit: string) =>
  budgets.get(unit)?.breaker === 'open' && !healing.has(unit);

function withheldOf({ condition, withheld }: UnitHealth, { healsNothing, healStopped }: UnitCircumstances): string | null {
  return withheld ?? healsNothing ?? (condition === 'stopped' && !healStopped ? 'RECLAIMD_HEAL_STOPPED is not set' : null);
}

/** Of units that do not run. Says nothing that changes by the mere passing of time. */
export function findFailed(units: readonly UnitHealth[], circumstances: UnitCircumstances): Finding[] {
  const { node, lastErrors } = circumstances;
  return units
    .filter(({ condition }) => condition !== null)
    .map((health) => {
      const { unit, condition, reason, result, exitCode = null, exitStatus, invocationId } = health;
      const withheld = withheldOf(health, circumstances);
      const lastError = lastErrors.get(unit) ?? null;
      const stopped = isBreakerOpen(circumstances, unit);
      const state = condition === 'stopped' ? 'should run, but is stopped' : condition === 'failed' ? 'failed' : 'failed, start limit hit';
      const why = withheld ?? (stopped ? 'healing has stopped' : null);
      return {
        class: 'unit_failed',
        fingerprint: `unit_failed:${node}:${unit}`,
        summary: `${unit} on ${node} ${state}: ${reason}${why === null ? '' : `; ${why}`}`,
        evidence: {
          unit,
          node,
          condition,
          result,
          exitCode,
          exitStatus,
          invocation: invocationId,
          lastError,
          withheld,
          breaker: stopped ? 'open' : 'closed',
        },
      };
    });
}

/** Of units that do not stay up, whether systemd restarts them or we do. */
export function findFlapping(units: readonly UnitHealth[], circumstances: UnitCircumstances): Finding[] {
  const { node, restarts, flapRestarts, budgets } = circumstances;
  return units.flatMap(({ unit }): Finding[] => {
    const count = restarts.get(unit) ?? 0;
    const stopped = isBreakerOpen(circumstances, unit);
    if (count < flapRestarts && !stopped) return [];
    const heals = budgets.get(unit)?.heals ?? 0;
    const summary = stopped
      ? `healing ${unit} on ${node} was tried ${heals === 1 ? 'once' : `${heals} times`} and is not tried any more until a person or a quiet period comes`
      : `${unit} on ${node} was restarted ${count} times by systemd`;
    return [
      {
        class: 'unit_flapping',
        fingerprint: `unit_flapping:${node}:${unit}`,
        summary,
        evidence: { unit, node, restarts: count, heals, breaker: stopped ? 'open' : 'closed' },
      },
    ];
  });
}
