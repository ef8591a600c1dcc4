import { setTimeout as delay } from 'node:timers/promises';
import { openBus } from '../../src/systemd/bus.ts';
import type { Machine } from './systemd-machine.ts';

const SYSTEMD = 'org.freedesktop.systemd1';
const MANAGER = { path: '/org/freedesktop/systemd1', interface: `${SYSTEMD}.Manager`, destination: SYSTEMD };

/** How often systemd loads or unloads a unit in that time, as everybody on its bus hears. */
export async function countUnitSignals(machine: Machine, ms: number): Promise<number> {
  let count = 0;
  const bus = await openBus(machine.busAddress.replace('unix:path=', ''), SYSTEMD, 10_000, ({ member }) => {
    if (member === 'UnitNew' || member === 'UnitRemoved') count += 1;
  });
  try {
    await bus.listen({ interface: MANAGER.interface });
    await bus.call({ ...MANAGER, member: 'Subscribe' }, 10_000);
    await delay(ms);
    return count;
  } finally {
    bus.close();
  }
}
