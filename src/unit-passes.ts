import type { Config } from './config.ts';
import { findAliases } from './healing/aliases.ts';
import { readBudgets } from './healing/budgets.ts';
import type { UnitHealth } from './healing/detect.ts';
import { needsHealing } from './healing/detect.ts';
import { enrich } from './healing/enrich.ts';
import { fenceUnit } from './healing/fence.ts';
import { findFailed, findFlapping, type UnitCircumstances } from './healing/findings.ts';
import { type HealDependencies, type HealEvent, healUnit } from './healing/heal.ts';
import { countRestarts, saveLives } from './healing/queries.ts';
import type { HungFence, HungLife } from './hung-fence.ts';
import { type Finding, project } from './incidents/incident.ts';
import { countIncidents, type Metrics } from './metrics/metrics.ts';
import type { Database } from './postgres/database.ts';
import type { Clock } from './runtime/clock.ts';
import { errorFields, type Logger } from './runtime/logger.ts';
import type { PassResult } from './runtime/loop.ts';

export interface UnitPassesDependencies {
  config: Config;
  database: Database;
  dependencies: HealDependencies;
  /** Where units of hung workers may be restarted. */
  fence: HungFence | undefined;
  metrics: Metrics;
  clock: Clock;
  log: Logger;
  /** Something about the units has changed: the next pass is due now. */
  onChange(): void;
}

/** Units that fail together are healed together, but not all begun at once; one that hangs at its start keeps no other waiting. */
const HEALS_AT_ONCE = 8;
const SLOT_MS = 10_000;
const BACKOFF_SLACK_MS = 100;

/** The daemon's care for the units of its host: look, heal what is due, tell. Heals go on beside the pass. */
export function createUnitPasses({ config, database, dependencies, fence, metrics, clock, log, onChange }: UnitPassesDependencies) {
  const { detector, allowlist, host, node } = dependencies;
  const healing = new Map<string, { work: Promise<void>; beganAt: number }>();
  const stopping = new AbortController();
  /** Lives that are known to be noted, and last words by life: each is written or read once. */
  let noted = new Set<string>();
  let words = new Map<string, string>();
  let lastFailed = new Map<string, Finding>();
  /** Why units were left alone at last, by unit: said once. */
  const leftAlone = new Map<string, string>();
  let heldBack = '';
  let areNamesKnown = false;

  const unwatch = dependencies.units.watch(allowlist.allows, (change) => {
    if (change.kind === 'changed') detector.noteChange(change.unit);
    else detector.noteChanges();
    const { activeState } = (change.kind === 'changed' && change.status) || {};
    if (activeState !== 'active' && activeState !== 'activating') onChange();
  });

  async function unitsPass(): Promise<PassResult> {
    const { units } = await detector.detect({ fresh: true });
    if (!areNamesKnown) for (const alias of await findAliases(dependencies.units, config)) log.warn(alias);
    areNamesKnown = true;
    const budgets = await readBudgets(database, host, dependencies.limits);
    let againInMs: number | undefined;
    /** Whether its budget allows it now; where not, the pass comes again when it does. */
    const isDue = (unit: string) => {
      const seconds = budgets.get(unit)?.againInSeconds ?? 0;
      if (seconds > 0) againInMs = Math.min(againInMs ?? Number.POSITIVE_INFINITY, seconds * 1000 + BACKOFF_SLACK_MS);
      return seconds <= 0;
    };
    if (config.heal === 'auto' && !config.dryRun) {
      const broken = units.filter((health) => needsHealing(health, config.healStopped));
      const hung = await findFenced(units);
      for (const health of broken) if (!healing.has(health.unit) && isDue(health.unit)) beginHeal(health);
      for (const life of hung) if (!healing.has(life.unit) && isDue(life.unit)) beginFence(life);
      for (const unit of leftAlone.keys()) if (![...broken, ...hung].some((one) => one.unit === unit)) leftAlone.delete(unit);
    }
    await noteLives(units);
    const circumstances: UnitCircumstances = {
      node,
      budgets,
      lastErrors: await readWords(units),
      restarts: await countRestarts(database, host, config.flapWindowMs / 1000),
      flapRestarts: config.flapRestarts,
      healStopped: config.healStopped,
      healsNothing: config.dryRun ? 'RECLAIMD_DRY_RUN is set' : config.heal === 'off' ? 'RECLAIMD_HEAL is off' : null,
      healing: new Set(healing.keys()),
    };
    const flapping = findFlapping(units, circumstances);
    await projectFailed(findFailed(units, circumstances));
    countIncidents(metrics, await project(database, node, 'unit_flapping', flapping));
    setGauges(units, flapping.length, [...budgets.values()].filter(({ breaker }) => breaker === 'open').length);
    return againInMs === undefined ? undefined : { againInMs: Math.min(againInMs, UNITS_INTERVAL_MS) };
  }

  /**
   * A process that is there but silent holds its attempts for ever: with the operator's leave its unit is restarted, under its
   * budget. Its attempts come back when the process is proven gone, not before. A process that outlived its unit's life is out
   * of reach of any restart.
   */
  async function findFenced(units: readonly UnitHealth[]): Promise<HungLife[]> {
    if (!fence) return [];
    const { lives, restraints } = await fence.look();
    const now = restraints
      .map(({ reason }) => reason)
      .sort()
      .join(' ');
    if (now !== heldBack) log.info({ reasons: now }, now === '' ? 'no hung worker is held back any more' : 'hung workers are held back');
    heldBack = now;
    const isOurs =
      ({ unit, invocation }: HungLife) =>
      (seen: UnitHealth) =>
        seen.unit === unit && seen.invocationId === invocation && seen.withheld === null;
    return lives.filter((life) => units.some(isOurs(life)));
  }

  function beginFence(life: HungLife): void {
    const { unit } = life;
    begin(unit, 'restart', async () => {
      const isSame = ({ invocationId }: { invocationId: string }) => invocationId === life.invocation;
      const acted = await fenceUnit(
        dependencies,
        unit,
        async (seen) => isSame(seen) && ((await fence?.isHung(life)) ?? false),
        stopping.signal,
      );
      if (acted.refused) return acted.message;
      if (acted.outcome === 'not_needed') return acted.error ?? 'its worker is well';
      const level = acted.outcome === 'done' ? 'warn' : 'error';
      log[level]({ unit, outcome: acted.outcome, error: acted.error }, 'its worker was there, but silent: restarted');
      return null;
    });
  }

  function beginHeal({ unit, condition, reason }: UnitHealth): void {
    begin(unit, 'heal', async () => {
      const startedAt = clock.now();
      const healer = { actor: `reclaimd@${node}`, automatic: true, reason: null };
      const onEvent = ({ phase }: HealEvent) => phase === 'starting' && log.info({ unit, condition, reason }, 'healing');
      const healed = await healUnit(dependencies, unit, healer, onEvent, stopping.signal);
      if (healed.outcome !== 'healed' && healed.outcome !== 'failed') return healed.why;
      if (healed.outcome === 'healed') log.info({ unit }, 'healed');
      else log.error({ unit, error: healed.error }, 'heal failed');
      metrics.heals.inc({ outcome: healed.outcome });
      metrics.healDuration.observe((clock.now() - startedAt) / 1000);
      return null;
    });
  }

  /** Beside the pass. @param act why it left the unit alone after all; null: something was done, and the next pass is due. */
  function begin(unit: string, what: 'heal' | 'restart', act: () => Promise<string | null>): void {
    const beganAt = clock.now();
    const slotsTaken = [...healing.values()].filter((other) => beganAt - other.beganAt < SLOT_MS).length;
    if (slotsTaken >= HEALS_AT_ONCE || stopping.signal.aborted) return;
    const work = act()
      .catch((error: unknown) => `it broke off: ${errorFields(error).error}`)
      .then((why) => {
        healing.delete(unit);
        if (why === null) {
          leftAlone.delete(unit);
          onChange();
        } else if (leftAlone.get(unit) !== why) {
          leftAlone.set(unit, why);
          log.warn({ unit, what, why }, 'left alone for now');
        }
      });
    healing.set(unit, { work, beganAt });
  }

  async function noteLives(units: readonly UnitHealth[]): Promise<void> {
    const lives = units.filter(({ invocationId }) => invocationId !== '');
    const fresh = lives.filter((health) => !noted.has(noteOf(health)));
    if (fresh.length === 0) return;
    const rows = fresh.map(({ unit, invocationId, restarts, stopRequested }) => ({
      unit,
      invocation: invocationId,
      restarts,
      stopRequested,
    }));
    await saveLives(database, host, rows, config.flapWindowMs / 1000);
    noted = new Set(lives.map(noteOf));
  }

  async function readWords(units: readonly UnitHealth[]): Promise<ReadonlyMap<string, string>> {
    const broken = units.filter(({ condition }) => condition !== null);
    const unread = broken.filter((health) => !words.has(lifeOf(health)));
    const read = unread.length === 0 ? new Map<string, string>() : await enrich(unread, { journal: dependencies.journal, clock });
    const wordsOf = (health: UnitHealth) => words.get(lifeOf(health)) ?? read.get(health.unit);
    const told = broken.flatMap((health): [UnitHealth, string][] => {
      const text = wordsOf(health);
      return text === undefined ? [] : [[health, text]];
    });
    words = new Map(told.map(([health, text]) => [lifeOf(health), text]));
    return new Map(told.map(([health, text]) => [health.unit, text]));
  }

  /** A unit that is being healed is not well before it has settled: its incident stays as it was. */
  async function projectFailed(findings: readonly Finding[]): Promise<void> {
    const now = new Map(findings.map((finding) => [finding.fingerprint, finding]));
    for (const unit of healing.keys()) {
      const fingerprint = `unit_failed:${node}:${unit}`;
      const before = lastFailed.get(fingerprint);
      if (before && !now.has(fingerprint)) now.set(fingerprint, before);
    }
    lastFailed = now;
    countIncidents(metrics, await project(database, node, 'unit_failed', [...now.values()]));
  }

  function setGauges(units: readonly UnitHealth[], flapping: number, breakersOpen: number): void {
    for (const condition of ['none', 'failed', 'start_limit_hit', 'stopped'] as const)
      metrics.units.set({ condition }, units.filter((health) => (health.condition ?? 'none') === condition).length);
    metrics.unitsFlapping.set(flapping);
    metrics.breakersOpen.set(breakersOpen);
    metrics.unitsLastSeen.setToCurrentTime();
  }

  return {
    unitsPass,
    /** What is being settled is recorded as unknown: nobody watches it to its end. */
    stop: async (): Promise<void> => {
      stopping.abort();
      unwatch();
      await Promise.all([...healing.values()].map(({ work }) => work));
    },
  };
}

export const UNITS_INTERVAL_MS = 5_000;

const lifeOf = ({ unit, invocationId }: UnitHealth) => `${unit} ${invocationId}`;
const noteOf = (health: UnitHealth) => `${lifeOf(health)} ${health.stopRequested}`;
