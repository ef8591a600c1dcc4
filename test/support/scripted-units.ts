import { randomUUID } from 'node:crypto';
import type { UnitJournal } from '../../src/actions/unit-journal.ts';
import type { UnitChange, UnitManager, UnitStatus } from '../../src/actions/unit-manager.ts';

export interface StartScript {
  /** The job's result. */
  job?: string;
  /** Where that is not done: the unit is inactive after it, not failed. */
  endsWell?: true;
  /** The job goes on until then; unset, it ends at once. */
  ends?: Promise<void>;
  /** So long after a job that was done, the unit ends again. */
  diesAfterMs?: number;
}

export interface ScriptedUnits {
  manager: UnitManager;
  journal: UnitJournal;
  /** What was asked of systemd, in order: `start a.service`. */
  calls: string[];
  /** How often the units were enumerated. */
  looks(): number;
  /** What the journal says, by unit. */
  lastLines: Map<string, string[]>;
  /** By unit: undefined is what the journal cannot tell, and a unit that is not in it ended by itself. */
  stopRequested: Map<string, boolean | undefined>;
  /** By unit that systemd has unloaded: the last life that the journal tells of. */
  lastLives: Map<string, string>;
  set(unit: string, status: Partial<UnitStatus>): void;
  /** The processes of a unit, and of those the ones that outlive a stop of it. */
  processes: Map<string, number[]>;
  survivors: Map<string, number[]>;
  /** How starts and restarts of that unit go. */
  onStart(unit: string, script: StartScript): void;
  /** The bus goes away: nothing is answered, and nothing told, until it is back. */
  setBus(isUp: boolean): void;
  /** Every further enumeration fails with this; undefined: they work again. */
  breakListing(error: Error | undefined): void;
}

/** A service manager that does what the test says: for what no real one can be made to do in time. */
export function createScriptedUnits(): ScriptedUnits {
  const units = new Map<string, UnitStatus>();
  const scripts = new Map<string, StartScript>();
  const watchers = new Set<{ wants(unit: string): boolean; onChange(change: UnitChange): void }>();
  const calls: string[] = [];
  const lastLines = new Map<string, string[]>();
  const stopRequested = new Map<string, boolean | undefined>();
  const lastLives = new Map<string, string>();
  const processes = new Map<string, number[]>();
  const survivors = new Map<string, number[]>();
  let broken: Error | undefined;
  let isBusUp = true;
  let absences = 0;
  let looks = 0;

  function set(unit: string, status: Partial<UnitStatus>): void {
    const before: UnitStatus = units.get(unit) ?? {
      unit,
      names: [unit],
      loadState: 'loaded',
      activeState: 'active',
      subState: 'running',
      unitFileState: 'enabled',
      result: 'success',
      exitCode: undefined,
      exitStatus: 0,
      restarts: 0,
      invocationId: randomUUID().replaceAll('-', ''),
      mainPid: 0,
      controlGroup: '',
      activeEnteredAt: 1,
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
    const after = { ...before, ...status };
    units.set(unit, after);
    if (isBusUp) for (const { wants, onChange } of watchers) if (wants(unit)) onChange({ kind: 'changed', unit, status: after });
  }

  const unitOf = (invocation: string) => [...units.values()].find(({ invocationId }) => invocationId === invocation)?.unit ?? '';

  function fail(unit: string): void {
    set(unit, { activeState: 'failed', subState: 'failed', result: 'exit-code', exitCode: 'exited', exitStatus: 1, inactiveEnteredAt: 2 });
  }

  function askBus<T>(answer: T): T {
    if (!isBusUp) throw new Error('the bus went away');
    return answer;
  }

  const manager: UnitManager = {
    get state() {
      return isBusUp ? 'connected' : 'unavailable';
    },
    list: async () => {
      looks += 1;
      if (broken) throw broken;
      return askBus([...units.values()]);
    },
    read: async (unit) => askBus(units.get(unit)),
    resetFailed: async (unit) => {
      calls.push(`reset-failed ${unit}`);
      if (units.get(unit)?.activeState === 'failed')
        set(unit, { activeState: 'inactive', subState: 'dead', result: 'success', restarts: 0 });
    },
    start: (unit) => runJob('start', unit),
    restart: (unit) => runJob('restart', unit),
    stop: async (unit) => {
      calls.push(`stop ${unit}`);
      set(unit, { activeState: 'inactive', subState: 'dead' });
      return 'done';
    },
    listProcesses: async (unit) => processes.get(unit) ?? [],
    watch: (wants, onChange) => {
      const watcher = { wants, onChange };
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
  };

  async function runJob(kind: 'start' | 'restart', unit: string): Promise<string> {
    calls.push(`${kind} ${unit}`);
    const absencesBefore = absences;
    const { job = 'done', endsWell, diesAfterMs, ends } = scripts.get(unit) ?? {};
    await ends;
    if (job !== 'done') {
      if (endsWell) set(unit, { activeState: 'inactive', subState: 'dead', result: 'success' });
      else fail(unit);
      return told(job);
    }
    processes.set(unit, survivors.get(unit) ?? []);
    set(unit, { activeState: 'active', subState: 'running', result: 'success', invocationId: randomUUID().replaceAll('-', '') });
    if (diesAfterMs !== undefined) setTimeout(() => fail(unit), diesAfterMs);
    return told(job);

    /** The job goes on without the bus; its result is lost. */
    function told(result: string): string {
      if (absences !== absencesBefore) throw new Error(`the bus went away while ${unit} was at its job`);
      return result;
    }
  }

  return {
    manager,
    journal: {
      readLastLines: async (invocation) => lastLines.get(unitOf(invocation)) ?? [],
      explainEnds: async (lives) =>
        lives.map(({ unit }) => ({
          stopRequested: stopRequested.has(unit) ? stopRequested.get(unit) : false,
          startLimitHit: false,
          invocationId: lastLives.get(unit),
        })),
    },
    calls,
    looks: () => looks,
    lastLines,
    stopRequested,
    lastLives,
    processes,
    survivors,
    set,
    onStart: (unit, script) => scripts.set(unit, script),
    setBus: (isUp) => {
      isBusUp = isUp;
      if (!isUp) absences += 1;
      if (isUp) for (const { onChange } of watchers) onChange({ kind: 'reconnected' });
    },
    breakListing: (error) => {
      broken = error;
    },
  };
}

export const FAILED: Partial<UnitStatus> = {
  activeState: 'failed',
  subState: 'failed',
  result: 'exit-code',
  exitCode: 'exited',
  exitStatus: 1,
  inactiveEnteredAt: 2,
};
