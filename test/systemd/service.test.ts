import { appendFile, chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { createFleetDatabase } from '../support/database.ts';
import { describeWithMachine } from '../support/describe-with-machine.ts';
import { type Machine, startMachine } from '../support/systemd-machine.ts';
import { waitFor } from '../support/wait.ts';

const root = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const CHECKOUT = root('').replace(/\/$/, '');
/** Where a package would be: the unit sees neither homes nor the host's /tmp, where a checkout may lie. */
const INSTALLED = '/opt/reclaimd';
const NODE = process.execPath.replace(CHECKOUT, INSTALLED);
const MAIN = `${INSTALLED}/src/main.ts`;
const WORKER = `${INSTALLED}/test/support/worker-main.ts`;

/** A machine that sees this checkout there, and a fleet. */
async function prepare() {
  const fleet = await createFleetDatabase({ queues: [{ name: 'mail' }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const machine = await startMachine({ hostname: 'alpha' });
  onTestFinished(() => machine.stop());
  await mkdir(machine.path(INSTALLED));
  await machine.run('mount', ['--bind', CHECKOUT, INSTALLED]);
  return { ...fleet, machine };
}

/** As the README says it: user, unit, environment, credential, polkit rule. Only where Node and the checkout are differs. */
async function install(units = 'app', { env = '', dropIn = '' } = {}) {
  const { machine, ...fleet } = await prepare();
  await writeFile(machine.path('/usr/lib/sysusers.d/reclaimd.conf'), await readFile(root('systemd/reclaimd.sysusers')));
  await machine.run('systemd-sysusers', []);
  await mkdir(machine.path('/etc/reclaimd'));
  await writeFile(machine.path('/etc/reclaimd/database-url'), fleet.url);
  await chmod(machine.path('/etc/reclaimd/database-url'), 0o600);
  const settings = `RECLAIMD_UNITS=${units}\nRECLAIMD_STARTUP_DELAY=0s\nRECLAIMD_OUTAGE_GRACE=0s\nRECLAIMD_HEAL_SETTLE=1s\n${env}`;
  await writeFile(machine.path('/etc/reclaimd/reclaimd.env'), `${settings}RECLAIMD_LISTEN=127.0.0.1:0\n`);
  const rules = await machine.run(NODE, [MAIN, 'polkit'], { env: { RECLAIMD_UNITS: units } });
  await writeFile(machine.path('/etc/polkit-1/rules.d/50-reclaimd.rules'), rules);
  await machine.writeUnits({
    'reclaimd.service': await readFile(root('systemd/reclaimd.service'), 'utf8'),
    'app.service': '[Service]\nExecStart=/bin/sh -c "echo Error: it begins >&2; exec sleep 600"\n',
    'other.service': '[Service]\nExecStart=/bin/sleep 600\n',
  });
  await mkdir(machine.path('/etc/systemd/system/reclaimd.service.d'));
  const here = `[Service]\nExecStart=\nExecStart=${NODE} ${MAIN} run\n${dropIn}`;
  await writeFile(machine.path('/etc/systemd/system/reclaimd.service.d/here.conf'), here);
  await machine.run('systemctl', ['daemon-reload']);
  return { ...fleet, machine };
}

/** Where it serves its pages, in the machine as here. */
async function urlOf(machine: Machine): Promise<string> {
  return waitFor('its address', async () => /"url":"(http:[^"]+)"/.exec(await logOf(machine))?.[1]);
}

/** The commands of the README about the service, in their order; the last one runs `doctor` with the daemon's rights. */
async function readCommands(): Promise<string[]> {
  const [, section = ''] = (await readFile(root('README.md'), 'utf8')).split('### As a service\n');
  return [...(section.split('\n## ', 1)[0] ?? '').matchAll(/```sh\n(.*?)```/gs)].map(([, block = '']) => block);
}

/** Only where Node and the checkout are differs. */
async function doctorCommand(): Promise<string> {
  return ((await readCommands()).at(-1) ?? '').replace('exec reclaimd doctor', `exec ${NODE} ${MAIN} doctor`);
}

const logOf = (machine: Machine) => machine.run('journalctl', ['-u', 'reclaimd', '--no-pager', '-o', 'cat']);

describeWithMachine("the daemon's own unit", () => {
  test('as its own user: ready once it has looked, adopts, reads the journal, heals what polkit lets it', async () => {
    const { machine, database, url, boss } = await install();
    await machine.writeUnit(
      'worker.service',
      `[Service]\nExecStart=${NODE} ${WORKER} '${JSON.stringify({ url, queues: ['mail'], mode: 'forever' })}'\n`,
    );
    await machine.run('systemctl', ['start', 'reclaimd']);
    expect(await machine.property('reclaimd', 'ActiveState')).toBe('active');
    expect(await machine.property('reclaimd', 'StatusText')).toMatch(/^(executors|degraded)/);
    expect((await machine.run('ps', ['-o', 'user=', '-p', await machine.property('reclaimd', 'MainPID')])).trim()).toBe('reclaimd');

    await boss.send('mail', {});
    await machine.run('systemctl', ['start', 'worker']);
    await waitFor(
      'the worker to be adopted',
      async () =>
        (await database.query('SELECT FROM executor WHERE witness_node IS NOT NULL AND unit = $1', ['worker.service'])).length === 1,
    );
    await waitFor('the job to be active', async () => (await boss.findJobs('mail'))[0]?.state === 'active');
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'worker']);
    await waitFor('the job to be back', async () => (await boss.findJobs('mail'))[0]?.state === 'retry');

    await machine.run('systemctl', ['start', 'app']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    const [heal] = await waitFor('the heal', async () => {
      const rows = await database.query<{ outcome: string; error: string | null }>(
        'SELECT outcome, error FROM unit_action WHERE outcome IS NOT NULL',
      );
      return rows.length > 0 && rows;
    });
    expect(heal).toEqual({ outcome: 'done', error: null });
    await waitFor('what it read in the journal', async () => {
      const rows = await database.query<{ evidence: { lastError: string | null } }>(
        `SELECT evidence FROM incident WHERE class = 'unit_failed'`,
      );
      return rows[0]?.evidence.lastError?.includes('it begins');
    });
    await waitFor('its status to tell', async () => /executors: .*1 dead/.test(await machine.property('reclaimd', 'StatusText')));

    const metrics = await (await fetch(`${await urlOf(machine)}/metrics`)).text();
    expect(metrics).toMatch(/^reclaimd_heals_total\{outcome="healed"\} 1$/m);
    expect(metrics).toMatch(/^reclaimd_systemd_connected 1$/m);

    const { stdout: said, stderr } = await machine.try('sh', ['-c', await doctorCommand()]);
    expect(stderr).toBe('');
    for (const name of ['database', 'unit', 'systemd', 'journal', 'polkit', 'processes', 'daemon'])
      expect(said).toMatch(new RegExp(`^ok +${name}: `, 'm'));
    expect(said).toMatch(/^ok +unit: reclaimd\.service runs it as reclaimd, watched and restarted, with an exposure of 1\.\d$/m);
    expect(said).toMatch(/^ok +journal: /m);

    const touch = ['--target', await machine.property('reclaimd', 'MainPID'), '--mount', 'runuser', '-u', 'reclaimd', '--', 'touch'];
    await machine.run('nsenter', [...touch, '/var/lib/reclaimd/archive']);
    expect((await machine.try('nsenter', [...touch, '/var/log/archive'])).code).not.toBe(0);

    await machine.run('systemctl', ['stop', 'reclaimd']);
    expect(await machine.property('reclaimd', 'Result')).toBe('success');
    expect(await database.query('SELECT FROM node WHERE stopped_at IS NULL')).toEqual([]);
    expect(await logOf(machine)).not.toMatch(/"level":"error"/);
  });

  test('a bus that comes late, falls silent or dies is told of and survived; a stop in the middle of a heal is quick', async () => {
    const { machine, database } = await install('app', { env: 'RECLAIMD_HEAL_BACKOFF=0s\n' });
    await machine.run('systemctl', ['stop', 'dbus.socket', 'dbus.service']);
    await machine.run('systemctl', ['start', 'reclaimd', 'app']);
    const url = await urlOf(machine);
    const systemd = async () => ((await (await fetch(`${url}/readyz`)).json()) as { systemd: string }).systemd;
    const heals = async () => (await database.query(`SELECT FROM unit_action WHERE outcome = 'done'`)).length;
    expect(await systemd()).toBe('unavailable');
    await machine.run('systemctl', ['start', 'dbus.socket', 'dbus.service']);
    await waitFor('it to be connected', async () => (await systemd()) === 'connected');
    const bus = await machine.property('dbus', 'MainPID');
    await machine.run('kill', ['-STOP', bus]);
    await waitFor('the silence to be told', async () => (await systemd()) === 'unavailable');
    expect((await fetch(`${url}/readyz`)).status).toBe(503);
    expect((await fetch(`${url}/livez`)).status).toBe(200);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    await machine.run('kill', ['-CONT', bus]);
    await waitFor('the heal of what failed meanwhile', async () => (await heals()) === 1);

    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'dbus.service']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    await waitFor('the heal over another bus', async () => (await heals()) === 2);
    expect(await systemd()).toBe('connected');

    await machine.writeUnit('app.service', '[Service]\nType=notify\nExecStart=/bin/sleep 600\nTimeoutStartSec=60\n');
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    await waitFor('a start that hangs', async () => (await machine.property('app', 'ActiveState')) === 'activating');
    const stoppedAt = performance.now();
    await machine.run('systemctl', ['stop', 'reclaimd']);
    expect(performance.now() - stoppedAt).toBeLessThan(14_000);
    expect(await machine.property('reclaimd', 'Result')).toBe('success');
    expect(await database.query('SELECT FROM node WHERE stopped_at IS NULL')).toEqual([]);
  });

  test.each(['/usr/local', '/opt/node'])('README, word for word, where npm puts commands into %s', async (prefix) => {
    const { machine, url } = await prepare();
    // What npm would have made of the package.
    await machine.run('mkdir', ['-p', `${prefix}/bin`, `${prefix}/lib/node_modules/reclaimd`]);
    await machine.run('cp', ['-r', `${INSTALLED}/systemd`, `${prefix}/lib/node_modules/reclaimd`]);
    await machine.run('ln', ['-sf', NODE, `${prefix}/bin/node`]);
    const scripts = {
      npm: `if [ "$1" = root ]; then echo ${prefix}/lib/node_modules; fi`,
      reclaimd: `exec /usr/bin/env node ${MAIN} "$@"`,
    };
    for (const [name, script] of Object.entries(scripts))
      await writeFile(machine.path(`${prefix}/bin/${name}`), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const env = { PATH: `${prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin` };
    const [prepares = '', placesElsewhere = '', starts = '', consults = ''] = await readCommands();

    await machine.run('sh', ['-ec', prepares.replace('postgres://reclaimd:secret@db/app', url)], { env });
    if (prefix !== '/usr/local') await machine.run('sh', ['-ec', placesElsewhere], { env });
    // The machine's network is the host's.
    await appendFile(machine.path('/etc/reclaimd/reclaimd.env'), 'RECLAIMD_LISTEN=127.0.0.1:0\n');
    expect(await machine.run('sh', ['-ec', starts], { env })).toMatch(/Active: active \(running\)/);
    const said = await machine.run('sh', ['-ec', consults], { env });
    for (const name of ['daemon', 'unit', 'polkit', 'journal']) expect(said).toMatch(new RegExp(`^ok +${name}: `, 'm'));
  });

  test('polkit lets its user do nothing to other units, and no more than healing does to the allowed ones', async () => {
    const { machine } = await install('app* !app-database');
    await machine.writeUnits({ 'app-database.service': '[Service]\nExecStart=/bin/sleep 600\n' });
    await machine.run('systemctl', ['start', 'app', 'other', 'app-database']);
    const as = (...args: string[]) => machine.try('systemctl', ['--no-ask-password', ...args], { user: 'reclaimd' });
    expect((await as('restart', 'app')).code).toBe(0);
    expect((await as('reset-failed', 'app')).code).toBe(0);
    expect((await as('stop', 'app')).code).toBe(0);
    expect((await as('start', 'app')).code).toBe(0);
    for (const forbidden of [
      ['stop', 'other'],
      ['stop', 'app-database'],
      ['enable', 'app'],
      ['kill', 'app'],
      ['mask', 'app'],
      ['set-property', 'app', 'CPUWeight=1'],
      ['poweroff'],
      ['daemon-reload'],
    ])
      expect([forbidden, (await as(...forbidden)).code]).not.toEqual([forbidden, 0]);
    expect(await machine.property('other', 'ActiveState')).toBe('active');
    expect(await machine.property('app-database', 'ActiveState')).toBe('active');
  });

  test('what polkit denies is told, and nothing else breaks; doctor sees it, and what the unit lacks', async () => {
    const { machine, database, url } = await install('app');
    await writeFile(machine.path('/etc/polkit-1/rules.d/50-reclaimd.rules'), '// nothing\n');
    await machine.run('systemctl', ['restart', 'polkit']);
    await machine.run('systemctl', ['start', 'reclaimd', 'app']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    const heal = await waitFor(
      'the heal to fail',
      async () => (await database.query<{ error: string }>(`SELECT error FROM unit_action WHERE outcome = 'failed'`))[0],
    );
    expect(heal.error).toMatch(/interactive authentication required|access denied|not authorized/i);
    expect(await machine.property('reclaimd', 'ActiveState')).toBe('active');

    // What root may do says nothing of what the daemon may.
    const env = { DATABASE_URL: url, RECLAIMD_UNITS: 'app', RECLAIMD_HEAL_SETTLE: '0s' };
    await machine.run(NODE, [MAIN, 'heal', 'app', '--actor', 'ann@desk'], { env });
    expect((await machine.try(NODE, [MAIN, 'doctor'], { env })).stdout).toMatch(/^warn +polkit: root may .*\(app\.service\) was denied: /m);
    const bare = [
      'Type=simple',
      'NotifyAccess=none',
      'WatchdogSec=0',
      'Restart=no',
      'User=root',
      'SystemCallFilter=',
      'RestrictNamespaces=no',
    ];
    const open = ['CapabilityBoundingSet=~', 'NoNewPrivileges=no', 'ProtectSystem=no', 'PrivateUsers=no', 'RestrictAddressFamilies='];
    await writeFile(
      machine.path('/etc/systemd/system/reclaimd.service.d/zz-bare.conf'),
      ['[Service]', ...bare, ...open, `Environment=DATABASE_URL=${url}`, ''].join('\n'),
    );
    await machine.run('systemctl', ['daemon-reload']);
    await machine.run('systemctl', ['restart', 'reclaimd']);
    const { stdout: said, code } = await machine.try('sh', ['-c', await doctorCommand()]);
    expect(code).toBe(1);
    expect(said).toMatch(/^fail +polkit: .*app\.service: /m);
    for (const lack of ['Type=simple', 'no watchdog', 'Restart=no', 'it runs as root', 'password', 'exposure of [3-9]'])
      expect(said).toMatch(new RegExp(`^warn +unit: reclaimd\\.service: .*${lack}`, 'm'));
  });

  test('doctor asks what polkit allows now, and nothing comes of it', async () => {
    const { machine, url } = await install('app other mail@ mail-*');
    await machine.writeUnits({
      'mail@.service': '[Service]\nExecStart=/bin/false\n',
      'mail-a.service': '[Service]\nExecStart=/bin/false\n',
      'app.service': '[Service]\nExecStart=/bin/false\n',
    });
    await machine.run('systemctl', ['start', 'mail@a', 'mail-a', 'app', 'other']);
    const states = () => machine.run('systemctl', ['list-units', '--all', '--plain', 'mail*', 'app*', 'other*', 'reclaimd*']);
    const before = await waitFor('the failures', async () => {
      const now = await states();
      return now.split(' failed ').length === 4 && now;
    });
    const command = await doctorCommand();
    const polkit = async () => /^.*polkit: .*$/m.exec((await machine.try('sh', ['-c', command])).stdout)?.[0];
    for (const [units, asked] of [
      ['mail@', 'mail@reclaimd-doctor.service'],
      ['app mail-*', 'mail-reclaimd-doctor.service'],
      ['app other', 'other.service'],
    ]) {
      await writeFile(machine.path('/etc/reclaimd/reclaimd.env'), `RECLAIMD_UNITS=${units}\n`);
      expect(await polkit()).toBe(`ok      polkit: this user may heal, asked about ${asked}`);
    }
    const rule = machine.path('/etc/polkit-1/rules.d/50-reclaimd.rules');
    const text = await readFile(rule);
    await rm(rule);
    await waitFor('its absence to be seen', async () => /^fail .* may not heal, asked about other.service: /.test((await polkit()) ?? ''));
    await writeFile(rule, text);
    await waitFor('the rule to be seen', async () => /^ok .* may heal/.test((await polkit()) ?? ''));
    expect(await states()).toBe(before);

    const env = { DATABASE_URL: url, RECLAIMD_UNITS: 'app' };
    expect((await machine.try(NODE, [MAIN, 'doctor'], { env })).stdout).toMatch(/^skipped polkit: root may do everything; no heal /m);
  });

  test('without its database it is up, says what it lacks, and goes on trying; with a wrong configuration it stays down', async () => {
    const { machine } = await install();
    await writeFile(machine.path('/etc/reclaimd/database-url'), 'postgres://nobody@127.0.0.1:1/none');
    await machine.run('systemctl', ['start', 'reclaimd']);
    expect(await machine.property('reclaimd', 'ActiveState')).toBe('active');
    expect(await machine.property('reclaimd', 'StatusText')).toMatch(/^degraded: database down/);

    await writeFile(machine.path('/etc/reclaimd/reclaimd.env'), 'RECLAIMD_BATCH=0\n');
    expect((await machine.try('systemctl', ['restart', 'reclaimd'])).code).not.toBe(0);
    expect(await machine.property('reclaimd', 'ActiveState')).toBe('failed');
    expect([await machine.property('reclaimd', 'ExecMainStatus'), await machine.property('reclaimd', 'NRestarts')]).toEqual(['2', '0']);
    expect(await logOf(machine)).toContain('RECLAIMD_BATCH: given "0"');
  });

  test('an address that something else has for a while is waited for', async () => {
    const { machine } = await install();
    // The machine's network is the host's.
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void other.close());
    await writeFile(machine.path('/etc/reclaimd/reclaimd.env'), `RECLAIMD_LISTEN=127.0.0.1:${(other.address() as AddressInfo).port}\n`);
    expect((await machine.try('systemctl', ['start', 'reclaimd'])).code).not.toBe(0);
    await waitFor('it to try again', async () => Number(await machine.property('reclaimd', 'NRestarts')) > 1);
    other.close();
    await waitFor('it to run', async () => (await machine.property('reclaimd', 'ActiveState')) === 'active');
    expect(await logOf(machine)).toContain('(EADDRINUSE)');
  });

  test('a daemon that hangs is restarted by its watchdog', async () => {
    const { machine } = await install('app', { dropIn: 'WatchdogSec=4s\n' });
    await machine.run('systemctl', ['start', 'reclaimd']);
    const pid = await machine.property('reclaimd', 'MainPID');
    await machine.run('kill', ['-STOP', pid]);
    await waitFor('another life', async () => {
      const now = await machine.property('reclaimd', 'MainPID');
      return now !== pid && now !== '0' && (await machine.property('reclaimd', 'ActiveState')) === 'active';
    });
    expect(await machine.property('reclaimd', 'NRestarts')).toBe('1');
  });

  test('is hardened: an exposure of 2.0 at most', async () => {
    const machine = await startMachine({ hostname: 'alpha' });
    onTestFinished(() => machine.stop());
    await machine.writeUnit('reclaimd.service', await readFile(root('systemd/reclaimd.service'), 'utf8'));
    const said = await machine.run('systemd-analyze', ['security', '--no-pager', 'reclaimd.service']);
    const exposure = Number(/exposure level for reclaimd\.service: ([\d.]+)/.exec(said)?.[1]);
    console.info(`systemd-analyze security: ${exposure}`);
    expect(exposure).toBeLessThanOrEqual(2);
  });
});
