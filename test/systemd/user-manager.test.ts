import { chmod, chown, mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { createFleetDatabase } from '../support/database.ts';
import { describeWithMachine } from '../support/describe-with-machine.ts';
import { startMachine } from '../support/systemd-machine.ts';
import { waitFor } from '../support/wait.ts';

const path = (from: string) => fileURLToPath(new URL(from, import.meta.url));
/** `nobody`: whose manager it is does not matter. */
const UID = 65_534;
const RUNTIME = `/run/user/${UID}`;
const HOME = '/home/worker';

/** As logind has it, which the machine has not. */
const MANAGER = `[Service]
User=${UID}
Type=notify
Delegate=yes
Slice=user-${UID}.slice
Environment=HOME=${HOME} XDG_RUNTIME_DIR=${RUNTIME}
ExecStart=/lib/systemd/systemd --user
`;

/** As dbus-user-session has them, which not every machine has. */
const BUS = {
  'dbus.socket': '[Socket]\nListenStream=%t/bus\n',
  'dbus.service':
    '[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\nExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation\n',
};

describeWithMachine('RECLAIMD_SYSTEMD=user', () => {
  test("a user's daemon in the user's own manager knows and heals the user's units, and nothing of the system's", async () => {
    const { url, database, boss } = await createFleetDatabase({ queues: [{ name: 'mail' }] });
    await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
    const machine = await startMachine({ hostname: 'alpha' });
    onTestFinished(() => machine.stop());
    const worker = JSON.stringify({ url, queues: ['mail'], mode: 'forever' }).replaceAll('"', '\\"');
    const settings = [
      `DATABASE_URL=${url}`,
      'RECLAIMD_SYSTEMD=user',
      'RECLAIMD_UNITS=app',
      'RECLAIMD_LISTEN=off',
      'RECLAIMD_HEAL_SETTLE=0s',
    ];
    const environment = settings.map((each) => `Environment="${each}"\n`).join('');
    const units = {
      ...BUS,
      'reclaimd.service': `[Service]\n${environment}ExecStart=${process.execPath} ${path('../../src/main.ts')} run\n`,
      'worker.service': `[Service]\nExecStart=${process.execPath} ${path('../support/worker-main.ts')} "${worker}"\n`,
      'app.service': '[Service]\nExecStart=/bin/sleep 600\n',
    };
    for (const [name, text] of Object.entries(units)) {
      const file = machine.path(`${HOME}/.config/systemd/user/${name}`);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, text);
    }
    await mkdir(machine.path(RUNTIME), { recursive: true });
    await chown(machine.path(RUNTIME), UID, UID);
    await chmod(machine.path(RUNTIME), 0o700);
    await machine.writeUnits({ [`user@${UID}.service`]: MANAGER, 'app.service': '[Service]\nExecStart=/bin/sleep 600\n' });
    await machine.run('systemctl', ['start', `user@${UID}`, 'app']);
    const env = { XDG_RUNTIME_DIR: RUNTIME };
    const ofUser = (...words: string[]) => machine.run('systemctl', ['--user', ...words], { user: 'nobody', env });
    await ofUser('start', 'dbus', 'reclaimd', 'app', 'worker');
    await boss.send('mail', {});
    await waitFor('the worker to be known with its unit', async () => {
      const rows = await database.query<{ unit: string | null }>('SELECT unit FROM executor WHERE witness_node IS NOT NULL');
      return rows[0]?.unit === 'worker.service';
    });
    await ofUser('kill', '--signal=KILL', '--kill-whom=main', 'app');
    await waitFor('the heal', async () => (await database.query(`SELECT FROM unit_action WHERE outcome = 'done'`)).length === 1);
    expect((await ofUser('is-active', 'app')).trim()).toBe('active');
    await waitFor('the job to be active', async () => (await boss.findJobs('mail'))[0]?.state === 'active');
    await ofUser('kill', '--signal=KILL', '--kill-whom=main', 'worker');
    const [crash] = await waitFor('the crash', async () => {
      const rows = await database.query<{ unit: string; result: string }>('SELECT unit, result FROM unit_crash');
      return rows.length > 0 && rows;
    });
    expect(crash).toEqual({ unit: 'worker.service', result: 'signal' });
    // The system's unit of the same name is another.
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    const doctor = { user: 'nobody', env: { ...env, DATABASE_URL: url, RECLAIMD_SYSTEMD: 'user', RECLAIMD_UNITS: 'app' } };
    const { stdout: said } = await machine.try(process.execPath, [path('../../src/main.ts'), 'doctor'], doctor);
    expect(said).toMatch(/^warn +unit: reclaimd\.service: Type=simple/m);
    expect(said).toMatch(/^ok +systemd: it answers; 1 units/m);
    expect(said).toMatch(/^ok +polkit: /m);
    expect(await machine.property('app', 'ActiveState')).toBe('failed');
  });
});
