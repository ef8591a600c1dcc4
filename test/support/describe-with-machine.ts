import { describe } from 'vitest';
import { findObstacle } from './systemd-machine.ts';

/** Never on CI, where a machine that does not boot is a failure. */
const obstacle = process.env['CI'] === undefined ? findObstacle() : undefined;

/** Tests that need a machine: skipped, with the reason in their name, where there can be none. */
export function describeWithMachine(name: string, tests: () => void): void {
  if (obstacle === undefined) describe(name, tests);
  else describe.skip(`${name} (skipped: ${obstacle})`, tests);
}
