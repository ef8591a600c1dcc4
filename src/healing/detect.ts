import type { LifeEnd, UnitJournal } from '../actions/unit-journal.ts';
import type { UnitManager, UnitStatus } from '../actions/unit-manager.ts';
import type { Clock } from '../runtime/clock.ts';
import { createLimit } from '../runtime/limit.ts';
import { slicesOf } from '../runtime/slices.ts';
import type { Allowlist } from './allowlist.ts';
import { type Condition, isEnabled, judgeUnit, type UnitJudgement } from './condition.ts';
import { findObstacle } from './obstacle.ts';

export interface UnitHealth extends UnitStatus, UnitJudgement {
  /** Whether somebody asked for the end of its last life; undefined where nothing can tell. */
  stopRequested: boolean | undefined;
  /** What keeps anybody from starting it. */
  obstacle?: string;
}

export interface Detection {
  /** Every unit of the allowlist that systemd knows, in the order of names. */
  units: UnitHealth[];
  /** How old this is, by the monotonic clock. */
  ageMs: number;
}

export interface DetectorDependencies {
  units: UnitManager;
  journal: UnitJournal;
  clock: Clock;
  allowlist: Allowlist;
  desired: Allowlist;
  declaredStopped: Allowlist;
  /** By unit, the life that was ended or reset here for a start that did not take. */
  listLeftDown(): Promise<ReadonlyMap<string, string>>;
}

const ENDING_JOBS = ['stop', 'restart', 'try-restart'];
const CACHE_MS = 3_000;
/** The journal's say on the ends of some units; without it they stay unexplained, and are looked up again next time. */
const END_BUDGET_MS = 1_000;
const UNKNOWN_END: LifeEnd = { stopRequested: undefined, startLimitHit: undefined };
const STOPPED: LifeEnd = { stopRequested: true, startLimitHit: false };
/** A journal that is slow is asked at so many looks, five seconds apart; then its silence is no reason to leave a unit down. */
const PATIENT_LOOKS = 3;
/** What the journal cannot tell it is asked again at one look of so many: a minute apart. */
const SELDOM_LOOKS = 12;
/** Read together: units that fail by the hundred are all to be judged before the first of them is healed. */
const ENDS_AT_ONCE = 50;
const LANES = 2;

export type Detector = ReturnType<typeof createDetector>;

/** Looks at the units of the allowlist: one enumeration, shared by whoever asks within three seconds of it. */
export function createDetector(dependencies: DetectorDependencies) {
  const { units, journal, clock, allowlist, desired, declaredStopped, listLeftDown } = dependencies;
  /** Why lives ended, and at how many looks that was wanted to be known; kept while the unit rests there. */
  let ends = new Map<string, { unit: string; end: LifeEnd; looks: number }>();
  /** Of each enumeration under way, the units that have changed since it began: what the journal said before that is old. */
  const changedSince = new Set<Set<string>>();
  let latest: { units: Promise<UnitHealth[]>; startedAt: number } | undefined;

  /** @throws when the units cannot be enumerated: not knowing is no empty list. */
  async function detect({ fresh = false } = {}): Promise<Detection> {
    if (fresh || !latest || clock.now() - latest.startedAt >= CACHE_MS) latest = begin();
    const { units: found, startedAt } = latest;
    return { units: await found, ageMs: clock.now() - startedAt };
  }

  function begin() {
    const begun = { units: enumerate(), startedAt: clock.now() };
    begun.units.catch(() => {
      if (latest === begun) latest = undefined;
    });
    return begun;
  }

  async function enumerate(): Promise<UnitHealth[]> {
    if (allowlist.patterns.length === 0) return [];
    const leftDown = await listLeftDown();
    const listed = (await units.list(allowlist.patterns)).filter(allowlist.allowsUnit);
    const wanted = [...desired.patterns, ...leftDown.keys()];
    const statuses = [...listed, ...(await readUnloaded(wanted, new Set(listed.map(({ unit }) => unit))))];
    return judgeAll(
      statuses.toSorted((a, b) => (a.unit < b.unit ? -1 : 1)),
      leftDown,
    );
  }

  /** systemd unloads a unit that ended well and that nothing wants: those of which more is wanted are looked up one by one. */
  async function readUnloaded(wanted: readonly string[], listed: ReadonlySet<string>): Promise<UnitStatus[]> {
    const missing = [...new Set(wanted)].filter((name) => allowlist.allows(name) && !listed.has(name));
    const found = await Promise.all(missing.map((name) => units.read(name)));
    return found.filter((status) => status !== undefined && !listed.has(status.unit) && allowlist.allowsUnit(status)) as UnitStatus[];
  }

  /** One unit as it is now, past the cache; undefined where systemd knows none of that name. */
  async function look(unit: string): Promise<UnitHealth | undefined> {
    const [status, leftDown] = await Promise.all([units.read(unit), listLeftDown()]);
    return status && (await withObstacles([judge(status, await findEnd(status, leftDown), leftDown)]))[0];
  }

  async function judgeAll(statuses: readonly UnitStatus[], leftDown: ReadonlyMap<string, string>): Promise<UnitHealth[]> {
    const ended = statuses.filter((status) => isEndOfInterest(status, leftDown));
    const changed = new Set<string>();
    changedSince.add(changed);
    const found = await explainAll(ended.filter((status) => !isKnown(status) && !isLeftForNow(status))).finally(() =>
      changedSince.delete(changed),
    );
    const endOf = (status: UnitStatus) => found.get(keyOf(status)) ?? ends.get(keyOf(status))?.end ?? UNKNOWN_END;
    const judged = statuses.map((status) => judge(status, endOf(status), leftDown));
    ends = new Map(
      ended
        .filter(({ unit }) => !changed.has(unit))
        .map((status) => [keyOf(status), { unit: status.unit, end: endOf(status), looks: looksAt(status) + 1 }]),
    );
    return withObstacles(judged);
  }

  async function explainAll(statuses: readonly UnitStatus[]): Promise<Map<string, LifeEnd>> {
    const found = new Map<string, LifeEnd>();
    const limited = createLimit(LANES);
    const explainSome = async (some: readonly UnitStatus[]) => {
      const explained = await explain(some);
      for (const [index, status] of some.entries()) found.set(keyOf(status), explained[index] ?? UNKNOWN_END);
    };
    await Promise.all([...slicesOf(statuses, ENDS_AT_ONCE)].map((some) => limited(() => explainSome(some))));
    return found;
  }

  /** Those around a unit are looked at where it is down only, and each once for all of them. */
  function withObstacles(judged: readonly UnitHealth[]): Promise<UnitHealth[]> {
    const seen = new Map<string, Promise<UnitStatus | undefined>>();
    const read = (unit: string) => {
      const status = seen.get(unit) ?? units.read(unit);
      seen.set(unit, status);
      return status;
    };
    return Promise.all(
      judged.map(async (health) => {
        const obstacle = isDown(health) ? await findObstacle(health, read) : undefined;
        if (obstacle === undefined) return health;
        return { ...health, obstacle, withheld: health.condition === null ? health.withheld : (health.withheld ?? obstacle) };
      }),
    );
  }

  const looksAt = (status: UnitStatus) => ends.get(keyOf(status))?.looks ?? 0;

  /** Why a life ended does not change any more, but a life without an id cannot be told from the one after it. */
  const isKnown = (status: UnitStatus) => status.invocationId !== '' && ends.get(keyOf(status))?.end.stopRequested !== undefined;

  const isLeftForNow = (status: UnitStatus) => looksAt(status) >= PATIENT_LOOKS && looksAt(status) % SELDOM_LOOKS !== 0;

  async function findEnd(status: UnitStatus, leftDown: ReadonlyMap<string, string>): Promise<LifeEnd> {
    if (!isEndOfInterest(status, leftDown)) return UNKNOWN_END;
    const known = isKnown(status) ? ends.get(keyOf(status))?.end : (await explain([status]))[0];
    return known ?? UNKNOWN_END;
  }

  async function explain(statuses: readonly UnitStatus[]): Promise<LifeEnd[]> {
    const signal = AbortSignal.timeout(END_BUDGET_MS);
    const told = await journal.explainEnds(statuses, signal).catch((): LifeEnd[] => []);
    if (!signal.aborted) return told;
    return statuses.map((_, index) => {
      const end = told[index] ?? UNKNOWN_END;
      return end.stopRequested === undefined ? { ...end, overdue: true } : end;
    });
  }

  function isEndOfInterest({ activeState, unit, unitFileState }: UnitStatus, leftDown: ReadonlyMap<string, string>): boolean {
    const isWanted = () => desired.allows(unit) || isEnabled(unitFileState) || leftDown.has(unit);
    return activeState === 'failed' || (activeState === 'inactive' && isWanted());
  }

  function judge(status: UnitStatus, told: LifeEnd, leftDown: ReadonlyMap<string, string>): UnitHealth {
    const { unit } = status;
    const end = endKnown(status, told);
    const judgement = judgeUnit(status, {
      desired: desired.allows(unit),
      declaredStopped: declaredStopped.covers(status),
      end,
      leftDown: isLeftDown(status, end, leftDown.get(unit)),
    });
    return { ...status, ...judgement, stopRequested: end.stopRequested };
  }

  function endKnown(status: UnitStatus, { overdue, ...told }: LifeEnd): LifeEnd {
    if (told.stopRequested === undefined && status.stopSeen) return STOPPED;
    return overdue && looksAt(status) < PATIENT_LOOKS ? { ...told, overdue } : told;
  }

  /** The unit has changed: the next who asks looks anew, and at why it ended. */
  function noteChange(unit: string): void {
    latest = undefined;
    for (const changed of changedSince) changed.add(unit);
    for (const [key, told] of ends) if (told.unit === unit) ends.delete(key);
  }

  /** Any of them may have changed. */
  function noteChanges(): void {
    latest = undefined;
    for (const { unit } of ends.values()) noteChange(unit);
  }

  return { detect, look, noteChange, noteChanges };
}

/** A start that was refused changes how the life before is seen, and begins none. */
const keyOf = ({ unit, invocationId, activeState, result }: UnitStatus) => `${unit} ${invocationId} ${activeState} ${result}`;

/** Once systemd has unloaded a unit, only the journal can tell that it was not run and stopped since. */
const isLeftDown = ({ invocationId }: UnitStatus, end: LifeEnd, life: string | undefined) =>
  life !== undefined && (invocationId === life || (invocationId === '' && end.stopRequested === false && end.invocationId === life));

export const isDown = ({ activeState }: Pick<UnitStatus, 'activeState'>) => activeState === 'failed' || activeState === 'inactive';

/** Whether somebody has asked for the end of its life, be it that systemd lets others end before. */
export const isGoingDown = ({ activeState, job }: Pick<UnitStatus, 'activeState' | 'job'>) =>
  activeState === 'deactivating' || (job !== null && ENDING_JOBS.includes(job));

/** Whether a heal is due: broken, not left to a person, and stopped units only where that was asked for. */
export function needsHealing(
  { condition, withheld }: { condition: Condition | null; withheld: string | null },
  healStopped: boolean,
): boolean {
  return condition !== null && withheld === null && (condition !== 'stopped' || healStopped);
}

/** The units of the allowlist and what is wrong with them, at most three seconds old; `fresh`: looked up now. */
export function detect({ detector }: { detector: Detector }, options: { fresh?: boolean } = {}): Promise<Detection> {
  return detector.detect(options);
}
