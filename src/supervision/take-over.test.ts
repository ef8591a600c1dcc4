import { expect, test } from 'vitest';
import type { FleetState } from '../fleet/queries.ts';
import { whyHeld } from './take-over.ts';

const CALM: FleetState = {
  comebackSeconds: 1_000,
  comebackReason: 'the database server started',
  braked: false,
  ownBeatFresh: true,
  daemonAgeSeconds: 1_000,
};
const LIMITS = { outageGraceSeconds: 120, startupDelaySeconds: 60 };

test.each<[Partial<FleetState>, string | undefined]>([
  [{}, undefined],
  [{ comebackSeconds: null }, undefined],
  [{ comebackSeconds: 119 }, 'the database server started'],
  [{ ownBeatFresh: false }, 'this daemon was cut off'],
  [{ daemonAgeSeconds: 59 }, 'start-up delay'],
])('%j: %s', (state, held) => {
  expect(whyHeld({ ...CALM, ...state }, LIMITS)).toBe(held);
});
