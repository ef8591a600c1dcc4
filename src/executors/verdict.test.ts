import { expect, test } from 'vitest';
import { type Evidence, judge, thresholds } from './verdict.ts';

const LIMITS = { lateAfterSeconds: 60, missingAfterSeconds: 90 };
const QUIET: Evidence = {
  stopped: false,
  proof: null,
  witnessed: false,
  sighted: false,
  unseenSeconds: null,
  draining: false,
  silentSeconds: 0,
};

test.each<[string, Partial<Evidence>, string]>([
  ['a fresh beat', { silentSeconds: 1 }, 'alive'],
  ['just at two beats', { silentSeconds: 60 }, 'alive'],
  ['past two beats', { silentSeconds: 61 }, 'late'],
  ['past two beats, in sight', { silentSeconds: 61, witnessed: true }, 'late'],
  ['just at three beats', { silentSeconds: 90 }, 'late'],
  ['past three beats', { silentSeconds: 91 }, 'missing'],
  ['past three beats, in sight', { silentSeconds: 91, witnessed: true }, 'hung'],
  ['silent, in sight, and its unit is being stopped', { silentSeconds: 91, witnessed: true, draining: true }, 'alive'],
  ['silent, its unit was being stopped, and nobody sees it', { silentSeconds: 91, draining: true }, 'missing'],
  ['past three beats, and a process that may be its is there', { silentSeconds: 91, sighted: true }, 'hung'],
  ['silent, and in sight until just at three beats ago', { silentSeconds: 3600, unseenSeconds: 90 }, 'hung'],
  ['silent, and not in sight for three beats', { silentSeconds: 3600, unseenSeconds: 91 }, 'missing'],
  ['silent, in sight until lately, and its unit was being stopped', { silentSeconds: 91, unseenSeconds: 5, draining: true }, 'alive'],
  ['silent for a day, in sight', { silentSeconds: 86_400, witnessed: true }, 'hung'],
  ['proof, however fresh the beats', { silentSeconds: 0, proof: 'process_gone' }, 'dead'],
  ['proof, even in sight of somebody', { proof: 'host_rebooted', witnessed: true }, 'dead'],
  ['a graceful stop before proof', { stopped: true, proof: 'process_gone' }, 'stopped'],
  ['a graceful stop, silent since', { stopped: true, silentSeconds: 1000 }, 'stopped'],
  ['nothing ever heard', { silentSeconds: null }, 'unknown'],
])('%s', (_, evidence, verdict) => {
  expect(judge({ ...QUIET, ...evidence }, LIMITS).verdict).toBe(verdict);
});

test.each([
  ['pg-boss default beats', 30, null, null, 60, 90],
  ['fast beats have a floor, below which an outage could look like a death', 1, null, null, 2, 15],
  ['own thresholds', 15, 45, 120, 45, 120],
  ['own thresholds below the floor', 15, 45, 5, 15, 15],
])('thresholds: %s', (_, beat, late, missing, lateAfterSeconds, missingAfterSeconds) => {
  expect(thresholds(beat, { late, missing })).toEqual({ lateAfterSeconds, missingAfterSeconds });
});
