import type { FlowStore } from '../actions/flow-store.ts';
import type { SupervisionStore } from '../actions/supervision-store.ts';
import type { FleetState } from '../fleet/queries.ts';

export interface SupervisionLimits {
  outageGraceSeconds: number;
  startupDelaySeconds: number;
}

export interface TakeOverDependencies extends SupervisionLimits {
  supervision: Pick<SupervisionStore, 'supervise'>;
  flows: Pick<FlowStore, 'resolve'>;
  readFleet(): Promise<FleetState>;
}

/** Pure: why live jobs could look overdue now; undefined where they cannot. */
export function whyHeld(fleet: FleetState, limits: SupervisionLimits): string | undefined {
  if (!fleet.ownBeatFresh) return 'this daemon was cut off';
  if (fleet.comebackSeconds !== null && fleet.comebackSeconds < limits.outageGraceSeconds) return fleet.comebackReason ?? 'outage grace';
  if (fleet.daemonAgeSeconds < limits.startupDelaySeconds) return 'start-up delay';
  return undefined;
}

/**
 * One pass of pg-boss's supervision, unless live handlers could not have beaten of late. Flows are resolved in any case:
 * that harms nobody. @returns why it was held.
 */
export async function superviseOnce(dependencies: TakeOverDependencies): Promise<string | undefined> {
  const held = whyHeld(await dependencies.readFleet(), dependencies);
  if (held === undefined) await dependencies.supervision.supervise();
  await dependencies.flows.resolve();
  return held;
}
