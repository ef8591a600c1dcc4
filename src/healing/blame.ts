import type { JobStore } from '../actions/job-store.ts';
import type { UnitJournal } from '../actions/unit-journal.ts';
import type { UnitChange, UnitManager, UnitStatus } from '../actions/unit-manager.ts';
import { findExecutors } from '../executors/queries.ts';
import type { Database } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import { errorFields, type Logger } from '../runtime/logger.ts';
import { type CrashedAttempt, listRecovered, saveCrash, saveDraining, saveUnit } from './blame-queries.ts';
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
  /** Told of each crash that was recorded, with how its unit ended. */
  onCrash(result: string): void;
}

interface Life {
  unit: string;
  invocation: string;
}

/** systemd notices the end of a process a moment after us, and writes down why. */
const END_PATIENCE_MS = 2_000;
const END_POLL_MS = 50;
/** Ends of lives that nobody has asked for yet. */
const KEPT_ENDS = 200;
const MOST_ATTEMPTS = 100;

/**
 * Knows in which life of which unit each executor of this host runs, notes when the unit is being stopped, and when an
 * executor dies writes down how its unit ended, its last words, and what was in flight.
 */
export function createBlame(dependencies: BlameDependencies) {
  const { database, jobs, units, journal, clock, log, host, node } = dependencies;
  const lives = new Map<string, Life>();
  const ends = new Map<string, UnitStatus>();
  const draining = new Set<string>();
  /** Crashes being looked into: their units are still listened to. */
  const recording = new Set<string>();
  const wanted = (unit: string) => [...lives.values()].some((life) => life.unit === unit);
  const unwatch = units.watch(wanted, (change) => void note(change));

  /** Called once an executor is held in sight. Where there is no unit, or no answer, it is judged without. */
  async function learn(executorId: string, pid: number): Promise<void> {
    const unit = dependencies.unitOf(pid);
    if (unit === undefined || lives.has(executorId)) return;
    try {
      const status = await units.read(unit);
      if (!status || status.invocationId === '') return;
      lives.set(executorId, { unit: status.unit, invocation: status.invocationId });
      await saveUnit(database, executorId, status.unit, status.invocationId, status.activeState === 'deactivating');
    } catch (error) {
      log.warn({ executor: executorId, unit, ...errorFields(error) }, 'its unit could not be asked');
    }
  }

  async function note(change: UnitChange): Promise<void> {
    if (change.kind !== 'changed' || !change.status) return;
    const { status } = change;
    // A unit that waits for its restart, or ended, still says how the life before went.
    if (status.exitCode !== undefined && status.activeState !== 'active') {
      ends.set(status.invocationId, status);
      if (ends.size > KEPT_ENDS) ends.delete(ends.keys().next().value as string);
    }
    const stops = status.activeState === 'deactivating';
    if (stops === draining.has(status.unit)) return;
    if (stops) draining.add(status.unit);
    else draining.delete(status.unit);
    await saveDraining(database, node, status.unit, stops).catch((error: unknown) => {
      draining.delete(status.unit);
      log.warn({ unit: status.unit, ...errorFields(error) }, 'that the unit is being stopped could not be noted');
    });
  }

  /** Called once a death is recorded, before the executor is forgotten. */
  async function record(executorId: string): Promise<void> {
    const life = lives.get(executorId);
    if (!life) return;
    recording.add(executorId);
    try {
      const end = await findEnd(life);
      const words = await enrich([end], { journal, clock });
      const attempts = await listAttempts(executorId);
      await saveCrash(database, { executorId, host, node, ...life, end, lastError: words.get(end.unit) ?? null, attempts });
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

  /** What was in flight: given back by now, or still waiting for it. */
  async function listAttempts(executorId: string): Promise<CrashedAttempt[]> {
    const [executor] = await findExecutors(database, { ids: [executorId] }, 0);
    const recovered = await listRecovered(database, executorId, MOST_ATTEMPTS);
    if (!executor?.applicationName) return recovered;
    const active = await jobs.listActive(database, [executor.applicationName], MOST_ATTEMPTS);
    const all = [...recovered, ...active.map(({ queue, jobId, retryCount }) => ({ queue, jobId, retryCount }))];
    return [...new Map(all.map((attempt) => [`${attempt.queue}/${attempt.jobId}:${attempt.retryCount}`, attempt])).values()];
  }

  /** Called once an executor is out of sight. */
  function forget(executorId: string): void {
    if (recording.has(executorId)) return;
    const life = lives.get(executorId);
    lives.delete(executorId);
    if (life && !wanted(life.unit)) draining.delete(life.unit);
  }

  return { learn, record, forget, stop: unwatch };
}

function unknownEnd(unit: string): UnitStatus {
  return {
    unit,
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
  };
}
