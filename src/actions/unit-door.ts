import type { Database, Sql } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import {
  findUnderWay,
  lockUnit,
  readUnitAction,
  renewLease,
  saveEndedLife,
  saveIntent,
  saveResult,
  type UnitAction,
  type UnitActionIntent,
  type UnitActionResult,
  type UnitActionRow,
} from './unit-action-queries.ts';
import { auditUnitAction, endAbandoned } from './unit-record.ts';

/** Why nothing was begun: values, for being refused is no fault. */
export type UnitRefusal =
  | { refused: 'not_allowed'; message: string }
  /** Somebody else is at it; `id` to wait for. */
  | { refused: 'busy'; message: string; id: string; actor: string; action: UnitAction }
  /** The unit's budget does not allow it yet. */
  | { refused: 'budget'; message: string; againInSeconds: number }
  /** The command that it was for has ended, or is another's. */
  | { refused: 'over'; message: string };

export interface UnitActed extends UnitActionResult {
  refused?: undefined;
  id: string;
  /** False when the lease was lost meanwhile: another has ended the row, as unknown. */
  recorded: boolean;
}

/** An action that has begun. */
export interface BegunAction {
  /** Writes down which life is ended, or has its failure reset, so that the unit may start anew; before it is done. Null: none after all. @throws LeaseLost */
  noteEnded(life: string | null): Promise<void>;
}

/** Another has ended the action meanwhile, and may be at the unit. */
class LeaseLost extends Error {
  override readonly name = 'LeaseLost';
}

export interface UnitDoorDependencies {
  database: Database;
  clock: Clock;
  /** Of the units: what is under way on one host excludes everybody else there, of whatever node. */
  host: string;
  node: string;
  /** Whether that is a unit's name, and one that may be touched. */
  allows(unit: string): Promise<boolean>;
  /** Seconds until the budget allows one more without a person, within the transaction that will record it; 0: now. */
  mayActAgainIn(tx: Sql, unit: string): Promise<{ seconds: number; why: string }>;
}

/** Renewed while its holder lives: the time that others wait after a holder died. */
const LEASE_SECONDS = 15;
const RENEW_INTERVAL_MS = 4_000;
const POLL_INTERVAL_MS = 200;
/** What was done is worth telling even when the database needs a while to come back. */
const TELL_PATIENCE_MS = 10_000;
const TELL_PAUSE_MS = 500;

export type UnitDoor = ReturnType<typeof createUnitDoor>;

/** The one door through which units are changed: limits, one at a time, intent before, result and audit after. */
export function createUnitDoor(dependencies: UnitDoorDependencies) {
  const { database, clock, host, node } = dependencies;

  /**
   * Runs `act` under the unit's lease. What `act` throws is a failure of the action, and recorded as one; `not_needed`
   * says that it touched nothing.
   */
  async function change(
    intent: UnitActionIntent,
    act: (begun: BegunAction) => Promise<UnitActionResult>,
  ): Promise<UnitActed | UnitRefusal> {
    if (!(await dependencies.allows(intent.unit)))
      return { refused: 'not_allowed', message: `${JSON.stringify(intent.unit)} is not among the units of RECLAIMD_UNITS` };
    const begun = await database.transaction((tx) => begin(tx, intent));
    if (typeof begun !== 'string') return begun;
    const over = new AbortController();
    const renewal = keepLease(begun, over.signal);
    let result: UnitActionResult;
    try {
      result = await act({ noteEnded: (life) => noteEnded(begun, life) });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      result = { outcome: 'failed', error: message, condition: null, invocation: null, result: null, phases: [] };
    } finally {
      over.abort();
      await renewal;
    }
    return { ...result, id: begun, recorded: await tell(begun, intent, result) };
  }

  async function begin(tx: Sql, intent: UnitActionIntent): Promise<string | UnitRefusal> {
    const { unit } = intent;
    await lockUnit(tx, host, unit);
    await endAbandoned(tx, node, { host, unit });
    const other = await findUnderWay(tx, host, unit);
    if (other) return { refused: 'busy', message: `${other.actor} is at it`, id: other.id, actor: other.actor, action: other.action };
    if (intent.automatic) {
      const { seconds, why } = await dependencies.mayActAgainIn(tx, unit);
      if (seconds > 0) return { refused: 'budget', message: why, againInSeconds: seconds };
    }
    if (intent.command && !(await intent.command.hold(tx)))
      return { refused: 'over', message: 'its command was over before it began: nothing was done' };
    return saveIntent(tx, host, node, intent, LEASE_SECONDS);
  }

  async function noteEnded(id: string, life: string | null): Promise<void> {
    if (!(await saveEndedLife(database, id, life))) throw new LeaseLost('another has ended this meanwhile: nothing was done');
  }

  async function keepLease(id: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      await clock.sleep(RENEW_INTERVAL_MS, signal);
      if (signal.aborted) return;
      // Without the database the lease may run out: then another looks at the unit afresh, and finds it under way or well.
      await renewLease(database, id, LEASE_SECONDS).catch(() => undefined);
    }
  }

  async function tell(id: string, intent: UnitActionIntent, result: UnitActionResult): Promise<boolean> {
    const deadline = clock.now() + TELL_PATIENCE_MS;
    for (;;) {
      try {
        return await database.transaction(async (tx) => {
          if (!(await saveResult(tx, id, result))) return false;
          const { outcome, error, condition, invocation, phases } = result;
          if (outcome !== 'not_needed' && !intent.command)
            await auditUnitAction(tx, node, { ...intent, id, node, host }, outcome, {
              error,
              condition,
              invocation,
              result: result.result,
              phases,
            });
          return true;
        });
      } catch (error) {
        if (clock.now() > deadline) throw error;
        await clock.sleep(TELL_PAUSE_MS);
      }
    }
  }

  /** Waits for what another has under way. @returns its row with the outcome; `unknown` when its lease ran out. */
  async function waitFor(id: string): Promise<UnitActionRow | undefined> {
    for (;;) {
      const row = await readUnitAction(database, id);
      if (!row || row.outcome !== null) return row;
      if (!row.leased) return { ...row, outcome: 'unknown', error: 'its healer did not come back to tell' };
      await clock.sleep(POLL_INTERVAL_MS);
    }
  }

  return { change, waitFor };
}
