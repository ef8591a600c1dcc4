import { execFile } from 'node:child_process';

/** What systemd says of the service that runs the daemon. */
export interface OwnService {
  unit: string;
  type: string;
  notifyAccess: string;
  watchdog: string;
  restart: string;
  user: string;
  /** In the unit's own text, which everybody on the host may read. */
  environment: string;
  /** By `systemd-analyze security`: 0 to 10; undefined where that is not there. */
  exposure: number | undefined;
}

export interface Trouble {
  detail: string;
  mend: string;
}

const PROPERTIES = ['LoadState', 'Type', 'NotifyAccess', 'WatchdogUSec', 'Restart', 'User', 'Environment'];
const LOOK_MS = 5_000;
/** What our own unit stays below. */
const EXPOSURE = 2;

/** Undefined where the manager knows no such unit, or cannot be asked. */
export async function readOwnService(unit: string, of: 'system' | 'user'): Promise<OwnService | undefined> {
  const manager = `--${of}`;
  const shown = await say('systemctl', [manager, 'show', `--property=${PROPERTIES.join(',')}`, '--', unit]);
  const properties = new Map(shown.split('\n').map((line) => [line.split('=', 1)[0] ?? '', line.slice(line.indexOf('=') + 1)]));
  if (properties.get('LoadState') !== 'loaded') return undefined;
  const text = (name: string) => properties.get(name) ?? '';
  const analysis = await say('systemd-analyze', [manager, 'security', '--no-pager', '--', unit]);
  const exposure = /exposure level for .*: ([\d.]+)/.exec(analysis)?.[1];
  return {
    unit,
    type: text('Type'),
    notifyAccess: text('NotifyAccess'),
    watchdog: text('WatchdogUSec'),
    restart: text('Restart'),
    user: text('User'),
    environment: text('Environment'),
    exposure: exposure === undefined ? undefined : Number(exposure),
  };
}

/** What it says with its end; of one that fails or is not there, nothing. */
function say(command: string, words: readonly string[]): Promise<string> {
  const env = { PATH: '/usr/bin:/bin', XDG_RUNTIME_DIR: `/run/user/${process.getuid?.() ?? 0}` };
  return new Promise((resolve) => {
    execFile(command, words, { env, timeout: LOOK_MS, killSignal: 'SIGKILL' }, (_, stdout) => resolve(stdout));
  });
}

/** What is missing of what `systemd/reclaimd.service` gives. */
export function findTroubles(
  { type, notifyAccess, watchdog, restart, user, environment, exposure }: OwnService,
  of: 'system' | 'user',
): Trouble[] {
  const troubles: Trouble[] = [];
  const note = (found: boolean, detail: string, mend: string) => {
    if (found) troubles.push({ detail, mend });
  };
  const tells = type === 'notify' || type === 'notify-reload';
  note(!tells, `Type=${type}: it counts as started whatever it lacks`, 'Type=notify');
  note(tells && notifyAccess !== 'all', `NotifyAccess=${notifyAccess}: what its systemd-notify says is not heard`, 'NotifyAccess=all');
  note(['', '0', 'infinity'].includes(watchdog), 'no watchdog: when it hangs, nobody restarts it', 'WatchdogSec=30');
  note(restart !== 'always', `Restart=${restart}: when it ends, it may stay down`, 'Restart=always');
  note(of === 'system' && ['', 'root', '0'].includes(user), 'it runs as root', 'User=reclaimd, as systemd/reclaimd.sysusers makes it');
  note(
    /(^|\s)"?DATABASE_URL=\S*:[^\s/]\S*@/.test(environment),
    "the database's password stands in the unit, where every user of the host can read it",
    'LoadCredential= and DATABASE_URL_FILE=, as systemd/reclaimd.service has it',
  );
  note(
    of === 'system' && exposure !== undefined && exposure > EXPOSURE,
    `an exposure of ${exposure} by \`systemd-analyze security\``,
    'the sandbox of systemd/reclaimd.service: 2.0 at most',
  );
  return troubles;
}
