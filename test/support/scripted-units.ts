import { randomUUID } from 'node:crypto';
import type { UnitJournal } from '../../src/actions/unit-journal.ts';
import type { UnitChange, UnitManager, UnitStatus } from '../../src/actions/unit-manager.ts';

export interface ScriptedUnits {
  manager: UnitManager;
  journal: UnitJournal;
  /** What was asked of systemd, in order: `start a.service`. */
  calls: string[];
  /** How often the units were enumerated. */
  looks(): number;
  /** What the journal says, by unit. */
  lastLines: Map<string, string[]>;
  stopRequested: Map<string, boolean>;
  set(unit: string, status: Partial<UnitStatus>): void;
  /** How starts of that unit go: the job's result, and when it ends again, if it does. */
  onStart(unit: string, script: { job?: string; diesAfterMs?: number; takesMs?: number }): void;
  /** Every further enumeration fails with this; undefined: they work again. */
  breakListing(error: Error | undefined): void;
}

/** A service manager that does what the test says: for what no real one can be made to do in time. */
export function createScriptedUnits(): ScriptedUnits {
  const units = new Map<string, UnitStatus>();
  const scripts = new Map<string, { job?: string; diesAfterMs?: number; takesMs?: number }>();
  const watchers = new Set<{ wants(unit: string): boolean; onChange(change: UnitChange): void }>();
  const calls: string[] = [];
  const lastLines = new Map<string, string[]>();
  const stopRequested = new Map<string, boolean>();
  let broken: Error | undefined;
  let looks = 0;

  function set(unit: string, status: Partial<UnitStatus>): void {
    const before: UnitStatus = units.get(unit) ?? {
      unit,
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
    };
    const after = { ...before, ...status };
    units.set(unit, after);
    for (const { wants, onChange } of watchers) if (wants(unit)) onChange({ kind: 'changed', unit, status: after });
  }

  const unitOf = (invocation: string) => [...units.values()].find(({ invocationId }) => invocationId === invocation)?.unit ?? '';

  function fail(unit: string): void {
    set(unit, { activeState: 'failed', subState: 'failed', result: 'exit-code', exitCode: 'exited', exitStatus: 1, inactiveEnteredAt: 2 });
  }

  const manager: UnitManager = {
    state: 'connected',
    list: async () => {
      looks += 1;
      if (broken) throw broken;
      return [...units.values()];
    },
    read: async (unit) => units.get(unit),
    resetFailed: async (unit) => {
      calls.push(`reset-failed ${unit}`);
      if (units.get(unit)?.activeState === 'failed')
        set(unit, { activeState: 'inactive', subState: 'dead', result: 'success', restarts: 0 });
    },
    start: async (unit) => {
      calls.push(`start ${unit}`);
      const { job = 'done', diesAfterMs, takesMs = 0 } = scripts.get(unit) ?? {};
      await new Promise((done) => setTimeout(done, takesMs));
      if (job !== 'done') {
        fail(unit);
        return job;
      }
      set(unit, { activeState: 'active', subState: 'running', result: 'success', invocationId: randomUUID().replaceAll('-', '') });
      if (diesAfterMs !== undefined) setTimeout(() => fail(unit), diesAfterMs);
      return job;
    },
    restart: async (unit) => {
      calls.push(`restart ${unit}`);
      set(unit, { activeState: 'active', subState: 'running', result: 'success', invocationId: randomUUID().replaceAll('-', '') });
      return 'done';
    },
    stop: async (unit) => {
      calls.push(`stop ${unit}`);
      set(unit, { activeState: 'inactive', subState: 'dead' });
      return 'done';
    },
    listProcesses: async () => [],
    watch: (wants, onChange) => {
      const watcher = { wants, onChange };
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
  };
  return {
    manager,
    journal: {
      readLastLines: async (invocation) => lastLines.get(unitOf(invocation)) ?? [],
      explainEnd: async (unit) => ({ stopRequested: stopRequested.get(unit) ?? false, startLimitHit: false }),
    },
    calls,
    looks: () => looks,
    lastLines,
    stopRequested,
    set,
    onStart: (unit, script) => scripts.set(unit, script),
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
