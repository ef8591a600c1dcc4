import { expect, test } from 'vitest';
import { createScriptedUnits, FAILED } from '../test/support/scripted-units.ts';
import { parseUnitPatterns } from './healing/allowlist.ts';
import { findHarmless, spareNames } from './polkit-probe.ts';

const patternsOf = (written: string) => parseUnitPatterns(written) ?? [];

test.each([
  ['mail@', ['mail@reclaimd-doctor.service']],
  ['app-*', ['app-reclaimd-doctor.service']],
  ['*', ['reclaimd-doctor.service']],
  ['mail app-?-[0-9]', ['app-a-0.service']],
  ['w[!a-c]x[zy]*', ['wdxyreclaimd-doctor.service']],
  ['mail billing', []],
  ['app-* mail@ !app-*', ['mail@reclaimd-doctor.service']],
  ['mail@ !*doctor', []],
])('what %s allows and no unit is called', (written, names) => {
  expect(spareNames(patternsOf(written))).toEqual(names);
});

test.each([
  ['a name that is no unit, before one that is', 'up app-*', 'app-reclaimd-doctor.service'],
  ['an exact name that is no unit', 'up gone', 'gone.service'],
  ['of those that are there, one that rests', 'failed up resting', 'resting.service'],
  ['else one that runs and was never restarted', 'failed restarted up', 'up.service'],
  ['never one that failed, is on its way or was restarted', 'failed restarted starting refused', undefined],
  ['nor one that is excluded', 'up failed !up', undefined],
])('asks about %s', async (_, written, unit) => {
  const { manager, set } = createScriptedUnits();
  set('up.service', {});
  set('failed.service', FAILED);
  set('resting.service', { activeState: 'inactive', subState: 'dead' });
  set('refused.service', { activeState: 'inactive', subState: 'dead', result: 'exec-condition' });
  set('restarted.service', { restarts: 1 });
  set('starting.service', { activeState: 'activating', subState: 'auto-restart' });
  expect(await findHarmless(manager, patternsOf(written))).toBe(unit);
});

test('an alias is not asked about: polkit would hear another name', async () => {
  const { manager, set } = createScriptedUnits();
  set('alias.service', { unit: 'real.service' });
  expect(await findHarmless(manager, patternsOf('alias'))).toBe(undefined);
});
