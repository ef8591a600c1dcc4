import type { UnitStatus } from '../actions/unit-manager.ts';

/** A row of ListUnitsByPatterns: name, description, load, active and sub state, followed unit, path, and its job. */
export type UnitListing = [string, string, string, string, string, string, string, number, string, string];

const ENDS: Record<number, string> = { 1: 'exited', 2: 'killed', 3: 'dumped' };

/** From all properties of a unit, as D-Bus sends them. What a kind of unit does not have is empty. */
export function statusFrom(properties: Record<string, unknown>): Omit<UnitStatus, 'job' | 'stopSeen'> {
  const text = (name: string) => String(properties[name] ?? '');
  const number = (name: string) => Number(properties[name] ?? 0);
  const texts = (name: string) => (properties[name] ?? []) as string[];
  const invocation = properties['InvocationID'];
  return {
    unit: text('Id'),
    names: texts('Names'),
    loadState: text('LoadState'),
    activeState: text('ActiveState'),
    subState: text('SubState'),
    unitFileState: text('UnitFileState'),
    result: text('Result'),
    exitCode: ENDS[number('ExecMainCode')],
    exitStatus: number('ExecMainStatus'),
    restarts: number('NRestarts'),
    invocationId: invocation instanceof Uint8Array ? Buffer.from(invocation).toString('hex') : '',
    mainPid: number('MainPID'),
    controlGroup: text('ControlGroup'),
    activeEnteredAt: milliseconds(number('ActiveEnterTimestamp')),
    inactiveEnteredAt: milliseconds(number('InactiveEnterTimestamp')),
    triggeredBy: texts('TriggeredBy'),
    conflicts: [...texts('Conflicts'), ...texts('ConflictedBy')],
    requisite: texts('Requisite'),
    requires: [...texts('Requires'), ...texts('BindsTo')],
    unmetConditions: [...unmetOf(properties, 'Condition'), ...unmetOf(properties, 'Assert')],
    transient: properties['Transient'] === true,
    startLimitAction: text('StartLimitAction'),
  };
}

/** A condition with its outcome when it was tested last: below 0 where it did not hold. */
type Tested = [name: string, isTriggering: boolean, isNegated: boolean, parameter: string, outcome: number];

/** Of those that are triggering one that holds is enough. */
function unmetOf(properties: Record<string, unknown>, kind: 'Condition' | 'Assert'): string[] {
  if (properties[`${kind}Result`] !== false) return [];
  const unmet = ((properties[`${kind}s`] ?? []) as Tested[]).filter(([, , , , outcome]) => outcome < 0);
  const needed = unmet.filter(([, isTriggering]) => !isTriggering);
  return (needed.length > 0 ? needed : unmet).map(
    ([name, isTriggering, isNegated, parameter]) => `${name}=${isTriggering ? '|' : ''}${isNegated ? '!' : ''}${parameter}`,
  );
}

const milliseconds = (microseconds: number) => microseconds / 1000;

const UNIT_PATH = '/org/freedesktop/systemd1/unit/';

/** The unit's name from its object path, in which all but letters and digits is written as `_` and two hexadecimal digits. */
export function unitOfPath(path: string): string | undefined {
  if (!path.startsWith(UNIT_PATH)) return undefined;
  const escaped = path.slice(UNIT_PATH.length);
  const bytes = escaped.replace(/_([0-9a-f]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

export function pathOfUnit(unit: string): string {
  return UNIT_PATH + unit.replace(/[^a-zA-Z0-9]/g, (letter) => `_${letter.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
