import type { FlowStore } from '../actions/flow-store.ts';
import { nameAttempt } from '../actions/job-store.ts';
import type { ExpiringAttempt, SupervisionStore } from '../actions/supervision-store.ts';
import { appendAudit } from '../audit/append.ts';
import type { FleetState } from '../fleet/queries.ts';
import type { Sql } from '../postgres/database.ts';

export interface SupervisionLimits {
  outageGraceSeconds: number;
  startupDelaySeconds: number;
}

export interface TakeOverDependencies extends SupervisionLimits {
  database: Sql;
  node: string;
  supervision: Pick<SupervisionStore, 'supervise' | 'listExpiring' | 'listExpired'>;
  flows: Pick<FlowStore, 'resolve'>;
  readFleet(): Promise<FleetState>;
}

/** The turn of the daemons that have taken supervision over. */
export const SUPERVISE_TURN = 'supervise';
/** Of each queue; what is beyond is counted in no audit. pg-boss fails so many in one statement, too. */
const MOST_EXPIRING = 1_000;

/** A pass was called off halfway. Thrown, for pg-boss stands between who asks and who calls off. */
class Held extends Error {
  override readonly name = 'Held';
}

/** Pure: why live jobs could look overdue now; undefined where they cannot. */
export function whyHeld(fleet: FleetState, limits: SupervisionLimits): string | undefined {
  if (!fleet.ownBeatFresh) return 'this daemon was cut off';
  if (fleet.comebackSeconds !== null && fleet.comebackSeconds < limits.outageGraceSeconds) return fleet.comebackReason ?? 'outage grace';
  if (fleet.daemonAgeSeconds < limits.startupDelaySeconds) return 'start-up delay';
  if (fleet.braked) return 'too many executors fell silent together';
  // Who comes back from a mass failure has to beat first.
  if (fleet.releasedSeconds !== null && fleet.releasedSeconds < limits.outageGraceSeconds) return 'the mass-failure brake held until now';
  return undefined;
}

/** Pure: for how long a pass could have been made; undefined while it is held. */
export function freeSeconds(fleet: FleetState, limits: SupervisionLimits): number | undefined {
  if (whyHeld(fleet, limits) !== undefined) return undefined;
  return Math.min(
    (fleet.comebackSeconds ?? Number.POSITIVE_INFINITY) - limits.outageGraceSeconds,
    fleet.daemonAgeSeconds - limits.startupDelaySeconds,
    (fleet.releasedSeconds ?? Number.POSITIVE_INFINITY) - limits.outageGraceSeconds,
  );
}

/**
 * One pass of pg-boss's supervision, unless live handlers could not have beaten of late; that is asked again before each of its
 * statements, for a pass may take minutes, and the host may sleep in between. Flows are resolved in any case: that harms
 * nobody. @returns why it was held.
 */
export async function superviseOnce(dependencies: TakeOverDependencies): Promise<string | undefined> {
  const failures: unknown[] = [];
  const attempt = (work: () => Promise<void>) => work().catch((error: unknown) => void failures.push(error));
  const ask = async () => whyHeld(await dependencies.readFleet(), dependencies);
  let held: string | undefined;
  await attempt(async () => {
    held = await ask();
    if (held !== undefined) return;
    const expiring = new Map<string, ExpiringAttempt>();
    try {
      await dependencies.supervision.supervise(async () => {
        const why = await ask();
        if (why !== undefined) throw new Held(why);
        // A pass may take minutes: what the next statement fails may have become overdue since the last.
        for (const attempt of await dependencies.supervision.listExpiring(dependencies.database, MOST_EXPIRING))
          expiring.set(nameAttempt(attempt), attempt);
      });
    } catch (error) {
      if (!(error instanceof Held)) throw error;
      held = error.message;
    } finally {
      await attempt(() => auditExpired(dependencies, [...expiring.values()]));
    }
  });
  await attempt(() => dependencies.flows.resolve());
  if (failures.length > 1) throw new AggregateError(failures, String(failures[0]));
  if (failures.length === 1) throw failures[0];
  return held;
}

/** pg-boss commits what it does by itself: this can only be told when it is done. */
async function auditExpired({ database, node, supervision }: TakeOverDependencies, expiring: readonly ExpiringAttempt[]): Promise<void> {
  const attempts = expiring.length === 0 ? [] : await supervision.listExpired(database, expiring);
  if (attempts.length === 0) return;
  const event = { actor: `reclaimd@${node}`, action: 'supervise', target: 'queues', outcome: 'done', reason: null, node } as const;
  await appendAudit(database, { ...event, detail: { attempts } });
}
