import { type JobStore, nameAttempt } from '../actions/job-store.ts';
import type { UnitJournal } from '../actions/unit-journal.ts';
import type { UnitChange, UnitManager, UnitStatus } from '../actions/unit-manager.ts';
import { findExecutors } from '../executors/queries.ts';
import type { Database } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import { errorFields, type Logger } from '../runtime/logger.ts';
import { type CrashedAttempt, type Life, listLives, listRecovered, saveCrash, saveDraining, saveUnit } from './blame-queries.ts';
import { enrich } from './enrich.ts';

export interface BlameDependencies {
  database: Database;
  jobs: JobStore;
  units: UnitManager;
  journal: UnitJournal;
  clock: Clock;
  log: Logger;
  host: string;
  node: string;
  /** The unit that a process of this host runs in. */
  unitOf(pid: number): string | undefined;
  /** Whether that unit may be touched. */
  allows(unit: UnitStatus): boolean;
  /** Told of each crash that was recorded, with how its unit ended. */
  onCrash(result: string): void;
}

/** systemd notices the end of a process a moment after us, and writes down why. */
const END_PATIENCE_MS = 2_000;
const END_POLL_MS = 50;
/** Ends of lives that nobody has asked for yet. */
const KEPT_ENDS = 200;
const ATTEMPTS_PAGE = 1_000;

/**
 * Knows in which life of which unit each executor of this host runs, notes when the unit is being stopped, and when an
 * executor dies writes down how its unit ended, its last words, and what was in flight.
 */
export function createBlame(dependencies: BlameDependencies) {
  const { database, jobs, units, journal, clock, log, host, node } = dependencies;
  const lives = new Map<string, Life>();
  /** Executors in sight, by pid, whose unit nobody could be asked about yet. */
  const unlearned = new Map<string, number>();
  const ends = new Map<string, UnitStatus>();
  const draining = new Set<string>();
  /** Crashes being looked into: their units are still listened to. */
  const recording = new Set<string>();
  const wanted = (unit: string) => [...lives.values()].some((life) => life.unit === unit);
  const unwatch = units.watch(wanted, (change) => {
    if (change.kind === 'changed') void note(change);
    else void refresh().catch((error: unknown) => log.warn(errorFields(error), 'the units of executors could not be looked at again'));
  });

  /** Called once an executor is held in sight. Where there is no unit, or no answer yet, it is judged without. */
  async function learn(executorId: string, pid: number): Promise<void> {
    if (lives.has(executorId)) return;
    unlearned.set(executorId, pid);
    const unit = dependencies.unitOf(pid);
    try {
      const status = unit === undefined ? undefined : await units.read(unit);
      if (!unlearned.has(executorId)) return;
      if (status && status.invocationId !== '') {
        const saved = await saveUnit(database, executorId, {
          unit: status.unit,
          invocation: status.invocationId,
          allowed: dependencies.allows(status),
          draining: status.activeState === 'deactivating',
        });
        if (saved && unlearned.has(executorId)) lives.set(executorId, saved);
      }
      unlearned.delete(executorId);
    } catch (error) {
      log.warn({ executor: executorId, unit, ...errorFields(error) }, 'its unit could not be asked; asked again later');
    }
  }

  /** What could not be learned before, and what was not heard while the bus was away, or could not be noted. */
  async function refresh(): Promise<void> {
    if (units.state !== 'connected') return;
    for (const [executorId, pid] of [...unlearned]) await learn(executorId, pid);
    const names = [...new Set([...lives.values()].map(({ unit }) => unit))];
    if (names.length === 0) return;
    const stopping = (await units.list(names)).filter(({ activeState }) => activeState === 'deactivating').map(({ unit }) => unit);
    await saveDraining(database, node, names, stopping);
    draining.clear();
    for (const unit of stopping) draining.add(unit);
  }

  async function note({ status }: Extract<UnitChange, { kind: 'changed' }>): Promise<void> {
    if (!status) return;
    // A unit that waits for its restart, or ended, still says how the life before went.
    if (status.exitCode !== undefined && status.activeState !== 'active') {
      ends.set(status.invocationId, status);
      if (ends.size > KEPT_ENDS) ends.delete(ends.keys().next().value as string);
    }
    const stops = status.activeState === 'deactivating';
    if (stops === draining.has(status.unit)) return;
    if (stops) draining.add(status.unit);
    else draining.delete(status.unit);
    await saveDraining(database, node, [status.unit], stops ? [status.unit] : []).catch((error: unknown) =>
      log.warn({ unit: status.unit, ...errorFields(error) }, 'whether the unit is being stopped could not be noted; noted later'),
    );
  }

  /** Called once a death is recorded, before the executor is forgotten. */
  async function record(executorId: string): Promise<void> {
    recording.add(executorId);
    try {
      // One that died while no daemon looked was learned of by the daemon before.
      const life = lives.get(executorId) ?? (await listLives(database, [executorId]))[0];
      if (!life) return;
      const end = await findEnd(life);
      const words = await enrich([end], { journal, clock });
      const attempts = await listAttempts(executorId);
      await saveCrash(database, {
        executorId,
        host,
        node,
        unit: life.unit,
        invocation: life.invocation,
        end,
        lastError: words.get(end.unit) ?? null,
        attempts,
      });
      log.warn({ executor: executorId, unit: life.unit, result: end.result, attempts: attempts.length }, 'executor crashed with its unit');
      dependencies.onCrash(end.result);
    } catch (error) {
      log.error({ executor: executorId, ...errorFields(error) }, 'a crash could not be recorded');
    } finally {
      recording.delete(executorId);
      forget(executorId);
    }
  }

  /** How that life ended; where systemd has moved on before anybody could look, that is not known. */
  async function findEnd({ unit, invocation }: Life): Promise<UnitStatus & { result: string }> {
    const deadline = clock.now() + END_PATIENCE_MS;
    for (;;) {
      const end = ends.get(invocation) ?? (await units.read(unit).catch(() => undefined));
      const ended = end?.invocationId === invocation && end.exitCode !== undefined;
      if (ended) return end;
      if (clock.now() > deadline || (end && end.invocationId !== invocation && end.activeState === 'active'))
        return { ...unknownEnd(unit), invocationId: invocation };
      await clock.sleep(END_POLL_MS);
    }
  }

  /** What was in flight, in order: still waiting to be given back or, read after that, given back by now. */
  async function listAttempts(executorId: string): Promise<CrashedAttempt[]> {
    const [executor] = await findExecutors(database, { ids: [executorId] }, 0);
    const attempts: CrashedAttempt[] = [];
    if (executor?.applicationName) attempts.push(...(await listActive(executor.applicationName)));
    attempts.push(...(await listRecovered(database, executorId)));
    const byKey = new Map(attempts.map((attempt) => [nameAttempt(attempt), attempt]));
    return [...byKey].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, attempt]) => attempt);
  }

  async function listActive(applicationName: string): Promise<CrashedAttempt[]> {
    const active: CrashedAttempt[] = [];
    for (;;) {
      const page = await jobs.listActive(database, [applicationName], ATTEMPTS_PAGE, active.at(-1));
      active.push(...page.map(({ queue, jobId, retryCount }) => ({ queue, jobId, retryCount })));
      if (page.length < ATTEMPTS_PAGE) return active;
    }
  }

  /** Called once an executor is out of sight. */
  function forget(executorId: string): void {
    unlearned.delete(executorId);
    if (recording.has(executorId)) return;
    const life = lives.get(executorId);
    lives.delete(executorId);
    if (life && !wanted(life.unit)) draining.delete(life.unit);
  }

  return { learn, record, refresh, forget, stop: unwatch };
}

function unknownEnd(unit: string): UnitStatus {
  return {
    unit,
    names: [unit],
    loadState: '',
    activeState: '',
    subState: '',
    unitFileState: '',
    result: 'unknown',
    exitCode: undefined,
    exitStatus: 0,
    restarts: 0,
    invocationId: '',
    mainPid: 0,
    controlGroup: '',
    activeEnteredAt: 0,
    inactiveEnteredAt: 0,
    triggeredBy: [],
    conflicts: [],
    requisite: [],
    requires: [],
    unmetConditions: [],
    job: null,
    transient: false,
    startLimitAction: 'none',
    stopSeen: false,
  };
}
