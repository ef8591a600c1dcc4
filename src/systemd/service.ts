import { existsSync } from 'node:fs';
import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import { tryReset } from './reset-trial.ts';
import { createUnitJournal, type JournalReader } from './unit-journal.ts';
import { createUnitManager, type SystemdUnits } from './unit-manager.ts';

export interface SystemdSettings {
  /** `auto`: the system's, where this host was booted with systemd. */
  mode: 'auto' | 'system' | 'user' | 'off';
  /** The bus's socket, where it is not in its usual place. */
  socket: string | undefined;
}

export interface SystemdService {
  manager: SystemdUnits;
  journal: JournalReader;
  /** Resets that unit to learn whether polkit lets us: why not, or undefined. */
  tryReset(unit: string): Promise<string | undefined>;
  close(): void;
}

const SYSTEM_SOCKET = '/run/dbus/system_bus_socket';
/** As sd_booted(3) has it. */
const BOOTED_WITH_SYSTEMD = '/run/systemd/system';

/** The service manager of this host and its journal; undefined where there is none, or none is wanted. Connects when first used. */
export function openSystemd({ mode, socket }: SystemdSettings, dependencies: { clock: Clock; log: Logger }): SystemdService | undefined {
  if (mode === 'off') return undefined;
  // Its bus may come later, as it may go and come back.
  if (mode === 'auto' && !existsSync(BOOTED_WITH_SYSTEMD)) return undefined;
  const at = socket ?? (mode === 'user' ? `/run/user/${process.getuid?.() ?? 0}/bus` : SYSTEM_SOCKET);
  const manager = createUnitManager(at, dependencies);
  return {
    manager,
    journal: createUnitJournal({ manager: mode === 'user' ? 'user' : 'system' }),
    tryReset: (unit) => tryReset(at, unit),
    close: () => manager.close(),
  };
}
