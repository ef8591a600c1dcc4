import { BusDenied, openBus } from './bus.ts';
import { pathOfUnit } from './unit-properties.ts';

const SYSTEMD = 'org.freedesktop.systemd1';
const CALL_MS = 5_000;

/**
 * Resets that unit, over a connection of its own, to learn what polkit says of it: why it may not, or undefined. Asked of the unit's
 * object: systemd then loads a name that it does not know, where its manager's method refuses before it asks polkit.
 */
export async function tryReset(socket: string, unit: string): Promise<string | undefined> {
  const bus = await openBus(socket, SYSTEMD, CALL_MS, () => undefined);
  try {
    await bus.call({ destination: SYSTEMD, path: pathOfUnit(unit), interface: `${SYSTEMD}.Unit`, member: 'ResetFailed' }, CALL_MS);
    return undefined;
  } catch (error) {
    if (error instanceof BusDenied) return error.message;
    throw error;
  } finally {
    bus.close();
  }
}
