import type { JobResult, UnitChange, UnitManager, UnitStatus } from '../actions/unit-manager.ts';
import type { Clock } from '../runtime/clock.ts';
import { errorFields, type Logger } from '../runtime/logger.ts';
import { type BusCall, type BusConnection, BusFailure, type BusSignal, BusUnreachable, openBus } from './bus.ts';
import { createSeenStops } from './seen-stops.ts';
import { statusFrom, type UnitListing, unitOfPath } from './unit-properties.ts';

const SYSTEMD = 'org.freedesktop.systemd1';
const MANAGER = { path: '/org/freedesktop/systemd1', interface: `${SYSTEMD}.Manager`, destination: SYSTEMD };
const PROPERTIES = 'org.freedesktop.DBus.Properties';

export interface UnitManagerLimits {
  /** For each answer of the bus. */
  callMs: number;
  /** For a job to end: a start that hangs is systemd's to give up, after 90 s by default. */
  jobMs: number;
  /** Between attempts to connect, at most. */
  backoffMs: number;
}

const LIMITS: UnitManagerLimits = { callMs: 5_000, jobMs: 120_000, backoffMs: 5_000 };
const FIRST_BACKOFF_MS = 100;
/** Results of jobs that ended before anybody could wait for them: the signal may come before the answer. */
const KEPT_RESULTS = 256;
/** Changes of one unit come in bursts: one look at the end of each. */
const SETTLED_MS = 10;
const READS_AT_ONCE = 16;
const RESTING = ['active', 'failed', 'inactive'];
/** Of a job: not even what the unit requires is started with it, or what conflicts with it stopped. systemd keeps the order all the same. */
const ALONE = 'ignore-requirements';
const NO_SUCH_UNIT = `${SYSTEMD}.NoSuchUnit`;
const NO_UNIT = [NO_SUCH_UNIT, 'org.freedesktop.DBus.Error.InvalidArgs'];

export interface SystemdUnits extends UnitManager {
  close(): void;
}

/**
 * systemd over D-Bus. Connects when it is first used, and stays connected: when the bus goes, waiting calls fail at
 * once, it connects anew with backoff, subscribes again and tells its watchers that they may have missed something.
 */
export function createUnitManager(
  socket: string,
  { clock, log }: { clock: Clock; log: Logger },
  limits: UnitManagerLimits = LIMITS,
): SystemdUnits {
  const watchers = new Set<{ wants(unit: string): boolean; onChange(change: UnitChange): void }>();
  /** What is known of units, until systemd says that it has changed. */
  const known = new Map<string, UnitStatus>();
  /** Looks under way, the latest of each unit: what changes meanwhile makes their answer old. */
  const looks = new Map<string, symbol>();
  const waitingJobs = new Map<string, (result: JobResult) => void>();
  const jobResults = new Map<string, JobResult>();
  const dirty = new Set<string>();
  /** Units whose changes are being told: one look at each at a time. */
  const telling = new Set<string>();
  /** Units that have run, or failed, since systemd loaded them. */
  const lived = new Set<string>();
  const seenStops = createSeenStops();
  const stopping = new AbortController();
  let started = false;
  let connection: BusConnection | undefined;
  let arrival = Promise.withResolvers<BusConnection>();
  arrival.promise.catch(() => undefined);
  let state: UnitManager['state'] = 'connecting';
  let lastProblem: Error = new BusUnreachable(`the bus at ${socket} has not answered yet`);

  function start(): void {
    if (started) return;
    started = true;
    void stayConnected();
  }

  async function stayConnected(): Promise<void> {
    let backoffMs = FIRST_BACKOFF_MS;
    while (!stopping.signal.aborted) {
      let opened: BusConnection | undefined;
      try {
        opened = await openBus(socket, SYSTEMD, limits.callMs, onSignal);
        if (stopping.signal.aborted) return;
        await subscribe(opened);
        connection = opened;
        state = 'connected';
        backoffMs = FIRST_BACKOFF_MS;
        log.info({ socket }, 'systemd is connected');
        arrival.resolve(opened);
        for (const { onChange } of watchers) onChange({ kind: 'reconnected' });
        lastProblem = await opened.closed;
      } catch (error) {
        lastProblem = error instanceof Error ? error : new Error(String(error));
      } finally {
        opened?.close();
      }
      if (stopping.signal.aborted) return;
      if (state !== 'unavailable') log.warn(errorFields(lastProblem), 'systemd is not to be reached; trying again');
      forget();
      await clock.sleep(backoffMs, stopping.signal);
      backoffMs = Math.min(limits.backoffMs, backoffMs * 2);
    }
  }

  function forget(): void {
    state = 'unavailable';
    if (connection) {
      arrival = Promise.withResolvers<BusConnection>();
      arrival.promise.catch(() => undefined);
    }
    connection = undefined;
    known.clear();
    looks.clear();
    dirty.clear();
    lived.clear();
    jobResults.clear();
    seenStops.clear();
    for (const settle of waitingJobs.values()) settle('lost');
    waitingJobs.clear();
  }

  async function subscribe(opened: BusConnection): Promise<void> {
    await opened.listen({ interface: MANAGER.interface });
    await opened.listen({ interface: PROPERTIES, path: `${MANAGER.path}/unit` });
    // Who has subscribed before, over this connection, may not again; a new connection has not.
    await opened.call({ ...MANAGER, member: 'Subscribe' }, limits.callMs);
  }

  /** Waits a little for a bus that is just coming back. */
  async function call(asked: BusCall): Promise<unknown[]> {
    if (stopping.signal.aborted) throw new BusUnreachable('closed');
    start();
    if (!connection) {
      const over = new AbortController();
      const tooLate = clock.sleep(limits.callMs, over.signal).then(() => Promise.reject(lastProblem));
      await Promise.race([arrival.promise, tooLate]).finally(() => over.abort());
    }
    if (!connection) throw lastProblem;
    return connection.call(asked, limits.callMs);
  }

  function onSignal({ path, interface: name, member, body }: BusSignal): void {
    if (name === MANAGER.interface && member === 'JobRemoved') {
      const [, job, unit, result] = body as [number, string, string, string];
      if (isWanted(unit)) {
        seenStops.noteJobEnd(job, unit, result);
        changed(unit);
      }
      const settle = waitingJobs.get(job);
      if (settle) settle(result);
      else jobResults.set(job, result);
      if (jobResults.size > KEPT_RESULTS) jobResults.delete(jobResults.keys().next().value as string);
    } else if (name === MANAGER.interface && member === 'JobNew') void noteJobType(body[1] as string, body[2] as string);
    else if (name === MANAGER.interface && (member === 'UnitNew' || member === 'UnitRemoved')) changed(body[0] as string);
    else if (name === MANAGER.interface && member === 'Reloading') {
      known.clear();
      looks.clear();
    } else if (name === PROPERTIES) {
      const unit = unitOfPath(path);
      if (unit !== undefined) changed(unit);
    }
  }

  function changed(unit: string): void {
    known.delete(unit);
    looks.delete(unit);
    if (!isWanted(unit)) {
      lived.delete(unit);
      return;
    }
    dirty.add(unit);
    if (!telling.has(unit)) void tellAll(unit);
  }

  const isWanted = (unit: string) => [...watchers].some(({ wants }) => wants(unit));

  async function noteJobType(job: string, unit: string): Promise<void> {
    if (!isWanted(unit)) return;
    const type = await readJobType(job).catch(() => undefined);
    if (type !== undefined) seenStops.noteJobType(job, type);
  }

  /** Undefined where the job is over. */
  async function readJobType(job: string): Promise<string | undefined> {
    const asked = { destination: SYSTEMD, path: job, interface: PROPERTIES, member: 'Get', body: [`${SYSTEMD}.Job`, 'JobType'] };
    try {
      return (await call(asked))[0] as string;
    } catch (error) {
      if (error instanceof BusFailure) return undefined;
      throw error;
    }
  }

  async function tellAll(unit: string): Promise<void> {
    telling.add(unit);
    while (dirty.has(unit)) {
      await clock.sleep(SETTLED_MS, stopping.signal);
      dirty.delete(unit);
      if (!stopping.signal.aborted) await tell(unit);
    }
    telling.delete(unit);
  }

  /**
   * Asking must not load the unit: systemd would unload it again at once, and both are changes to be told of, for ever. A name that
   * somebody else had loaded, and that never ran, is nothing new; one that was forgotten and loaded again by our reading is gone.
   */
  async function tell(unit: string): Promise<void> {
    try {
      const path = await findPath('GetUnit', unit);
      const seen = path === undefined ? undefined : await readAt(path);
      const status = hasLived(seen) ? seen : undefined;
      if (!status) seenStops.forget(unit);
      if (!status && !lived.delete(unit)) return;
      for (const { wants, onChange } of watchers) if (wants(unit)) onChange({ kind: 'changed', unit, status });
    } catch (error) {
      // A bus that went away is told of as `reconnected`, later.
      log.debug({ unit, ...errorFields(error) }, 'a unit changed, but could not be read');
    }
  }

  /** Loads it where systemd has it on disk only. */
  async function read(unit: string): Promise<UnitStatus | undefined> {
    const path = await findPath('LoadUnit', unit);
    return path === undefined ? undefined : readAt(path);
  }

  /** A name that is no unit's, or that of a unit that is not loaded, has no path. */
  async function findPath(member: 'GetUnit' | 'LoadUnit', unit: string): Promise<string | undefined> {
    try {
      return (await call({ ...MANAGER, member, body: [unit] }))[0] as string;
    } catch (error) {
      if (error instanceof BusFailure && NO_UNIT.includes(error.code)) return undefined;
      throw error;
    }
  }

  async function readAt(at: string): Promise<UnitStatus | undefined> {
    const [properties] = await call({ destination: SYSTEMD, path: at, interface: PROPERTIES, member: 'GetAll', body: [''] });
    const status = statusFrom(properties as Record<string, unknown>);
    const [job, jobPath] = ((properties as Record<string, unknown>)['Job'] ?? [0, '/']) as [number, string];
    if (!isThere(status)) return undefined;
    const path = job === 0 ? null : jobPath;
    // At once: what is heard while the job is asked for comes after this state.
    const stopSeen = isWanted(status.unit) && seenStops.noteState({ ...status, job: path });
    const type = path === null ? undefined : await readJobType(path);
    if (path !== null && type !== undefined && isWanted(status.unit)) seenStops.noteJobType(path, type);
    const seen = { ...status, job: type ?? null, stopSeen };
    if (hasLived(seen)) lived.add(seen.unit);
    return seen;
  }

  async function list(patterns: readonly string[], states: readonly string[] = []): Promise<UnitStatus[]> {
    const [rows] = await call({ ...MANAGER, member: 'ListUnitsByPatterns', body: [[...states], [...patterns]] });
    const listed = (rows as UnitListing[]).filter(([, , loadState, activeState]) => isThere({ loadState, activeState }));
    const found: UnitStatus[] = [];
    const unread = listed.values();
    const lane = async () => {
      for (const [unit, , , activeState, subState, , path, , jobType] of unread) {
        const before = known.get(unit);
        const isSame = before?.activeState === activeState && before.subState === subState && (before.job ?? '') === jobType;
        const current = isSame ? before : await look(unit, path);
        if (!current) continue;
        found.push(current);
      }
    };
    await Promise.all(Array.from({ length: READS_AT_ONCE }, lane));
    return found.toSorted((a, b) => (a.unit < b.unit ? -1 : 1));
  }

  /** Only what does not move by itself is kept: a unit on its way is looked at each time. */
  async function look(unit: string, path: string): Promise<UnitStatus | undefined> {
    const mine = Symbol(unit);
    looks.set(unit, mine);
    try {
      const status = await readAt(path);
      if (status && RESTING.includes(status.activeState) && looks.get(unit) === mine) known.set(unit, status);
      return status;
    } finally {
      if (looks.get(unit) === mine) looks.delete(unit);
    }
  }

  async function runJob(member: 'StartUnit' | 'RestartUnit' | 'StopUnit', unit: string): Promise<JobResult> {
    const [job] = (await call({ ...MANAGER, member, body: [unit, ALONE] })) as [string];
    const early = jobResults.get(job);
    if (early !== undefined) {
      jobResults.delete(job);
      return early;
    }
    const ended = Promise.withResolvers<JobResult>();
    waitingJobs.set(job, ended.resolve);
    const over = new AbortController();
    try {
      const result = await Promise.race([ended.promise, clock.sleep(limits.jobMs, over.signal).then(() => 'overdue')]);
      if (result === 'lost') throw new BusUnreachable(`the bus went away while ${unit} was at its job`);
      if (result === 'overdue') throw new BusUnreachable(`the job of ${unit} had not ended after ${limits.jobMs / 1000} s`);
      return result;
    } finally {
      waitingJobs.delete(job);
      over.abort();
    }
  }

  return {
    get state() {
      return state;
    },
    list,
    read,
    resetFailed: async (unit) => {
      await call({ ...MANAGER, member: 'ResetFailedUnit', body: [unit] });
    },
    start: (unit) => runJob('StartUnit', unit),
    restart: (unit) => runJob('RestartUnit', unit),
    stop: (unit) => runJob('StopUnit', unit),
    listProcesses: async (unit) => {
      try {
        const [processes] = await call({ ...MANAGER, member: 'GetUnitProcesses', body: [unit] });
        return (processes as [string, number, string][]).map(([, pid]) => pid);
      } catch (error) {
        // It ended and was unloaded: what systemd has forgotten has no processes.
        if (error instanceof BusFailure && error.code === NO_SUCH_UNIT) return [];
        throw error;
      }
    },
    watch: (wants, onChange) => {
      start();
      const watcher = { wants, onChange };
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    close: () => {
      stopping.abort();
      connection?.close();
      // Whoever still waits has gone; the time-out would keep the process.
      for (const settle of waitingJobs.values()) settle('lost');
      arrival.reject(new BusUnreachable('closed'));
    },
  };
}

/** A unit whose file is gone is there until it is down and has not failed; a name that something mentions is none. */
const isThere = ({ loadState, activeState }: Pick<UnitStatus, 'loadState' | 'activeState'>) =>
  loadState !== 'not-found' || activeState !== 'inactive';

/** A unit that was just loaded has no life yet; systemd forgets those of a unit that it unloads. */
const hasLived = (status: UnitStatus | undefined) =>
  status !== undefined && (status.activeState !== 'inactive' || status.invocationId !== '');
