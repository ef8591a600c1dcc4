import { expect, test } from 'vitest';
import { describeWithMachine } from '../support/describe-with-machine.ts';
import { createMachineFleet, type MachineFleet } from '../support/machine-fleet.ts';
import type { Machine } from '../support/systemd-machine.ts';
import { countUnitSignals } from '../support/unit-signals.ts';
import { waitFor } from '../support/wait.ts';

const heals = ({ database }: MachineFleet) =>
  database.query<{ host: string; unit: string; outcome: string | null; error: string | null; condition: string | null }>(
    `SELECT host, unit, outcome, error, condition FROM unit_action WHERE outcome IS DISTINCT FROM 'not_needed' ORDER BY id`,
  );
const openIncidents = ({ database }: MachineFleet, incidentClass: string) =>
  database.query<{ fingerprint: string; evidence: Record<string, unknown> }>(
    'SELECT fingerprint, evidence FROM incident WHERE class = $1 AND resolved_at IS NULL',
    [incidentClass],
  );
const isActive = async (machine: Machine, unit: string) => (await machine.property(unit, 'ActiveState')) === 'active';

/** Fails until the file is there. */
const UNTIL_MENDED =
  '[Unit]\nStartLimitBurst=3\n[Service]\nExecStart=/bin/sh -c "test -e /run/mended && exec sleep 600; echo Error: no such host >&2; exit 7"\nRestart=always\nRestartSec=50ms\n';

describeWithMachine('healing with a real systemd', () => {
  test('start limit hit: detected with its last words, healed, settles; the incident goes', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', {
      env: { RECLAIMD_UNITS: 'app', RECLAIMD_HEAL_BACKOFF: '4s', RECLAIMD_HEAL_MAX: '50' },
    });
    await machine.writeUnit('app.service', UNTIL_MENDED);
    await machine.try('systemctl', ['start', 'app']);
    const [incident] = await waitFor('the incident', async () => {
      const open = await openIncidents(fleet, 'unit_failed');
      return open[0]?.evidence['lastError'] !== null && open.length === 1 && open;
    });
    expect(incident).toMatchObject({
      fingerprint: 'unit_failed:alpha:app.service',
      evidence: { condition: 'start_limit_hit', exitStatus: 7, lastError: expect.stringContaining('no such host') },
    });
    await waitFor('a heal that failed', async () => (await heals(fleet)).some(({ outcome }) => outcome === 'failed'));
    expect((await heals(fleet))[0]).toMatchObject({ condition: 'start_limit_hit', error: expect.not.stringContaining('no such host') });
    // systemd itself tries again after the start, up to its limit; the next heal is seconds away.
    await waitFor('the limit to be hit again', async () => (await machine.property('app', 'ActiveState')) === 'failed');
    await machine.run('touch', ['/run/mended']);
    await waitFor('a heal that worked', async () => (await heals(fleet)).some(({ outcome }) => outcome === 'done'));
    expect(await isActive(machine, 'app')).toBe(true);
    await waitFor('the incident to go', async () => (await openIncidents(fleet, 'unit_failed')).length === 0);
  });

  test('a unit that ends 2 s after its start is not reported healed; the breaker opens, and stays open over a restart of the daemon', async () => {
    const fleet = await createMachineFleet();
    const env = { RECLAIMD_UNITS: 'app*', RECLAIMD_HEAL_SETTLE: '4s', RECLAIMD_HEAL_BACKOFF: '0s', RECLAIMD_HEAL_MAX: '2' };
    const machine = await fleet.addMachine('alpha', { env });
    await machine.writeUnit('app.service', '[Service]\nExecStart=/bin/sh -c "sleep 2; exit 1"\n');
    await machine.try('systemctl', ['start', 'app']);
    await waitFor('the breaker', async () => (await openIncidents(fleet, 'unit_failed'))[0]?.evidence['breaker'] === 'open');
    const before = await heals(fleet);
    expect(before.map(({ outcome }) => outcome)).toEqual(['failed', 'failed']);
    expect(before[0]?.error).toMatch(/exited with status 1.* s after its start/);
    await machine.run('systemctl', ['restart', 'reclaimd']);
    // The new daemon has looked at the unit once it has healed another that failed after it.
    await machine.writeUnit('app-other.service', '[Service]\nExecStart=/bin/sleep 600\n');
    await machine.run('systemctl', ['start', 'app-other']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app-other']);
    await waitFor('the other to be healed', async () => (await heals(fleet)).some(({ outcome }) => outcome === 'done'));
    expect((await heals(fleet)).map(({ unit }) => unit)).toEqual(['app.service', 'app.service', 'app-other.service']);
    expect(await machine.property('app', 'ActiveState')).toBe('failed');
  });

  test('what a person stopped is left alone, however it ended; what only looks like it is not', async () => {
    const fleet = await createMachineFleet();
    const env = { RECLAIMD_UNITS: 'badly cleanly limited forged waiting other', RECLAIMD_HEAL_STOPPED: 'true' };
    const machine = await fleet.addMachine('alpha', { env });
    const sleeps = '[Service]\nExecStart=/bin/sleep 600\n';
    const wanted = '[Install]\nWantedBy=machine.target\n';
    await machine.writeUnits({
      'badly.service': `[Service]\nExecStart=/bin/sh -c "trap \\"exit 3\\" TERM; sleep 600 & wait"\n${wanted}`,
      'cleanly.service': `${sleeps}${wanted}`,
      'limited.service': sleeps,
      'forged.service': sleeps,
      'broken.service': '[Service]\nType=oneshot\nExecStart=/bin/false\n',
      'waiting.service': `[Unit]\nRequires=broken.service\nAfter=broken.service\n${sleeps}${wanted}`,
      'other.service': sleeps,
    });
    await machine.run('systemctl', ['enable', 'badly', 'cleanly', 'waiting']);
    await machine.run('systemctl', ['start', 'badly', 'cleanly', 'limited', 'forged', 'other']);
    await machine.run('systemctl', ['stop', 'badly', 'cleanly']);
    expect(await machine.property('badly', 'ActiveState')).toBe('failed');
    await machine.try('systemctl', ['start', 'waiting']);
    for (let restart = 0; restart < 8; restart++) await machine.try('systemctl', ['restart', 'limited']);
    // Whoever may log anything may log this, and call themselves systemd.
    const fields = ['MESSAGE=Stopping', 'JOB_TYPE=stop', 'MESSAGE_ID=de5b426a63be47a7b6ac3eaac82e2f6f'];
    const life = await machine.property('forged', 'InvocationID');
    const forgery = [...fields, `INVOCATION_ID=${life}`, `USER_INVOCATION_ID=${life}`].join('\\n');
    await machine.run('cp', ['/usr/bin/logger', '/tmp/systemd']);
    await machine.run('sh', ['-c', `printf '${forgery}\\n' | /tmp/systemd --journald`], { user: 'nobody' });
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'forged']);
    // Killed last, and healed: so the daemon has looked at all of them.
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'other']);
    await waitFor('three heals', async () => (await heals(fleet)).filter(({ outcome }) => outcome === 'done').length === 3);
    expect((await heals(fleet)).map(({ unit, condition }) => [unit, condition]).sort()).toEqual([
      ['forged.service', 'failed'],
      ['limited.service', 'start_limit_hit'],
      ['other.service', 'failed'],
    ]);
    expect(await machine.property('badly', 'ActiveState')).toBe('failed');
    expect(await machine.property('cleanly', 'ActiveState')).toBe('inactive');
    const [incident, ...others] = await waitFor('the incidents of the healed to go', async () => {
      const open = await openIncidents(fleet, 'unit_failed');
      return open.length === 1 && open;
    });
    expect(others).toEqual([]);
    expect(incident?.evidence).toMatchObject({ unit: 'waiting.service', condition: 'stopped', withheld: expect.any(String) });
  });

  test('a stop is remembered where the journal has forgotten it, or was never told', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', {
      env: { RECLAIMD_UNITS: 'badly quiet rising other', RECLAIMD_HEAL_BACKOFF: '0s', RECLAIMD_HEAL_MAX: '50' },
    });
    const endsBadly = 'ExecStart=/bin/sh -c "trap \\"exit 3\\" TERM; sleep 600 & wait"\n';
    await machine.writeUnits({
      'badly.service': `[Service]\n${endsBadly}`,
      // Drops systemd's own messages about the unit, too, but for those of its failure.
      'quiet.service': `[Service]\nLogLevelMax=notice\n${endsBadly}`,
      // Neither, and on its way up all the while.
      'rising.service': `[Service]\nType=notify\nTimeoutStartSec=infinity\nLogLevelMax=notice\n${endsBadly}`,
      'other.service': '[Service]\nExecStart=/bin/sleep 600\n',
    });
    await machine.run('systemctl', ['start', 'badly', 'quiet', 'other']);
    await machine.run('systemctl', ['start', '--no-block', 'rising']);
    let healed = 0;
    /** Killed last, and healed: so the daemon has looked at all of them. */
    const look = async () => {
      await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'other']);
      healed += 1;
      await waitFor(
        'the other to be healed',
        async () => (await heals(fleet)).filter(({ outcome }) => outcome === 'done').length === healed,
      );
      expect((await heals(fleet)).filter(({ unit }) => unit !== 'other.service')).toEqual([]);
    };
    await look();
    const states = () => Promise.all(['badly', 'quiet', 'rising'].map((unit) => machine.property(unit, 'ActiveState')));
    expect(await states()).toEqual(['active', 'active', 'activating']);
    await machine.run('systemctl', ['stop', 'badly', 'quiet', 'rising']);
    expect(await states()).toEqual(['failed', 'failed', 'failed']);
    await look();
    await machine.run('sh', ['-c', 'sleep 1.1; journalctl --rotate; journalctl --vacuum-time=1s']);
    expect(await machine.run('journalctl', ['--quiet', '--unit=badly', '--output=cat'])).not.toContain('Stopping');
    await machine.run('systemctl', ['daemon-reload']);
    await look();
    await machine.run('systemctl', ['restart', 'reclaimd']);
    await look();
    expect(await states()).toEqual(['failed', 'failed', 'failed']);
    // Each in its next life is like any other.
    await machine.run('systemctl', ['start', 'quiet']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'quiet']);
    await waitFor('it to be healed', async () =>
      (await heals(fleet)).some(({ unit, outcome }) => unit === 'quiet.service' && outcome === 'done'),
    );
  });

  test('a heal starts and stops no other unit, and waits where another one is in its way', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', {
      env: { RECLAIMD_UNITS: 'app late strict', RECLAIMD_UNITS_STOPPED: 'side', RECLAIMD_HEAL_BACKOFF: '0s' },
    });
    const sleeps = '[Service]\nExecStart=/bin/sleep 600\n';
    await machine.writeUnits({
      'app.service': `[Unit]\nRequires=needed.service\nWants=side.service\n${sleeps}`,
      'late.service': `[Unit]\nConflicts=rival.service\n${sleeps}`,
      'strict.service': `[Unit]\nRequisite=needed.service\n${sleeps}`,
      'needed.service': sleeps,
      'side.service': sleeps,
      'rival.service': sleeps,
    });
    await machine.run('systemctl', ['start', 'app', 'late', 'strict']);
    await machine.run('systemctl', ['stop', 'reclaimd']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app', 'late', 'strict']);
    await waitFor('their end', async () =>
      (await Promise.all(['app', 'late', 'strict'].map((unit) => machine.property(unit, 'ActiveState')))).every(
        (state) => state === 'failed',
      ),
    );
    await machine.run('systemctl', ['stop', 'needed', 'side']);
    await machine.run('systemctl', ['start', 'rival', 'reclaimd']);
    await waitFor('the heal', async () => (await heals(fleet)).some(({ unit, outcome }) => unit === 'app.service' && outcome === 'done'));
    const incidents = await waitFor('the incidents', async () => {
      const open = await openIncidents(fleet, 'unit_failed');
      return open.length === 2 && open;
    });
    expect(incidents.map(({ evidence }) => `${evidence['unit']}: ${evidence['withheld']}`).sort()).toEqual([
      'late.service: it conflicts with rival.service, which runs',
      'strict.service: it may run only beside needed.service, which is down',
    ]);
    const states = await Promise.all(['needed', 'side', 'rival'].map((unit) => machine.property(unit, 'ActiveState')));
    expect(states).toEqual(['inactive', 'inactive', 'active']);
    expect((await heals(fleet)).map(({ unit }) => unit)).toEqual(['app.service']);
    await machine.run('systemctl', ['stop', 'rival']);
    await waitFor('the next heal', async () =>
      (await heals(fleet)).some(({ unit, outcome }) => unit === 'late.service' && outcome === 'done'),
    );
  });

  test('a start that did not take leaves the unit broken, reset or not: tried again until it runs, or a person resets it', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', {
      env: { RECLAIMD_UNITS: 'skipped asserted refused wished limited run-*', RECLAIMD_HEAL_BACKOFF: '0s', RECLAIMD_HEAL_MAX: '500' },
    });
    const sleeps = '[Service]\nExecStart=/bin/sleep 600\n';
    await machine.writeUnits({
      'skipped.service': `[Unit]\nStartLimitIntervalSec=0\nConditionPathExists=/run/ready\n${sleeps}`,
      'asserted.service': `[Unit]\nStartLimitIntervalSec=0\nAssertPathExists=/run/ready\n${sleeps}`,
      'refused.service': `[Unit]\nRefuseManualStart=yes\n${sleeps}`,
      'wished.service': `[Unit]\nRefuseManualStart=yes\n${sleeps}[Install]\nWantedBy=machine.target\n`,
      // Its start limit is reset, and its start is skipped after that; nothing wants it, so systemd unloads it.
      'limited.service': `[Unit]\nConditionPathExists=!/run/halt\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n[Service]\nExecStart=/bin/sh -c "test -e /run/ready && exec sleep 600; exit 1"\nRestart=always\nRestartSec=0\n`,
      'stack.target': '[Unit]\nWants=skipped.service asserted.service refused.service wished.service\n',
    });
    const names = ['skipped', 'asserted', 'refused', 'wished', 'limited', 'run-plain'];
    const stateOf = (unit: string) => machine.property(unit, 'ActiveState');
    await machine.run('touch', ['/run/ready']);
    await machine.run('systemctl', ['enable', 'wished']);
    await machine.run('systemctl', ['start', 'stack.target']);
    await machine.run('systemctl', ['stop', 'reclaimd']);
    await machine.run('rm', ['/run/ready']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'skipped', 'asserted', 'refused', 'wished']);
    await machine.try('systemctl', ['start', 'limited']);
    // systemd forgets a unit that it was given by a call once it is down and has not failed: a reset would be its end.
    const untilReady = ['--', '/bin/sh', '-c', 'test -e /run/ready && exec sleep 600; exit 1'];
    const limit = ['--property=Restart=always', '--property=RestartSec=0', '--property=StartLimitBurst=2'];
    await machine.run('systemd-run', ['--unit=run-plain', '--property=StartLimitIntervalSec=0', ...untilReady]);
    await machine.run('systemd-run', ['--unit=run-limited', ...limit, ...untilReady]);
    await waitFor('all of them to have failed', async () => (await Promise.all(names.map(stateOf))).every((state) => state === 'failed'));
    await machine.run('touch', ['/run/halt']);
    await machine.run('systemctl', ['start', 'reclaimd']);
    const triesOf = async (unit: string) => (await heals(fleet)).filter((heal) => heal.unit === `${unit}.service` && heal.outcome !== null);
    for (const unit of names) await waitFor(`two tries of ${unit}`, async () => (await triesOf(unit)).length >= 2);
    const errors = await Promise.all(names.map(async (unit) => (await triesOf(unit))[1]?.error));
    expect(errors).toEqual([
      'its start was skipped: ConditionPathExists=/run/ready does not hold',
      'its start was refused: AssertPathExists=/run/ready does not hold',
      expect.stringContaining('may be requested by dependency only'),
      expect.stringContaining('may be requested by dependency only'),
      expect.stringContaining('it was inactive'),
      expect.stringContaining('it was failed'),
    ]);
    expect(await Promise.all(names.map(stateOf))).toEqual(['failed', 'failed', 'failed', 'failed', 'inactive', 'failed']);
    const broken = async () => (await openIncidents(fleet, 'unit_failed')).map(({ evidence }) => String(evidence['unit'])).sort();
    expect(await broken()).toEqual([
      'asserted.service',
      'limited.service',
      'refused.service',
      'run-limited.service',
      'run-plain.service',
      'skipped.service',
      'wished.service',
    ]);
    // That is how a person says that a failed unit is to stay down; one that is enabled is reported all the same.
    await machine.run('systemctl', ['reset-failed', 'refused', 'wished']);
    await machine.run('touch', ['/run/ready']);
    await machine.run('rm', ['/run/halt']);
    await waitFor('all to be well but the one that is reset', async () => (await broken()).length === 2);
    expect((await openIncidents(fleet, 'unit_failed')).toSorted((a, b) => (a.fingerprint < b.fingerprint ? -1 : 1))).toMatchObject([
      { evidence: { unit: 'run-limited.service', withheld: expect.stringContaining('it is transient') } },
      { evidence: { unit: 'wished.service', condition: 'stopped', withheld: 'RECLAIMD_HEAL_STOPPED is not set' } },
    ]);
    expect(await stateOf('run-limited')).toBe('failed');
    expect(await Promise.all(names.map(stateOf))).toEqual(['active', 'active', 'inactive', 'inactive', 'active', 'active']);
  });

  test('a unit is allowed by its own name; an alias excludes it, or declares it stopped', async () => {
    const fleet = await createMachineFleet();
    const env = { RECLAIMD_UNITS: 'app-* lone !mysql', RECLAIMD_UNITS_DESIRED: 'lone', RECLAIMD_UNITS_STOPPED: 'front' };
    const machine = await fleet.addMachine('alpha', { env });
    const known = (alias: string) => `[Service]\nExecStart=/bin/sleep 600\n[Install]\nAlias=${alias}.service\n`;
    const aliases = { 'app-db': 'mysql', 'app-web': 'front', outside: 'lone', 'app-last': 'last' };
    const names = Object.keys(aliases);
    await machine.writeUnits(Object.fromEntries(Object.entries(aliases).map(([name, alias]) => [`${name}.service`, known(alias)])));
    await machine.run('systemctl', ['enable', ...names]);
    await machine.run('systemctl', ['start', ...names]);
    // The last one is healed: so the daemon has looked at all of them.
    for (const name of names) await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', name]);
    await waitFor('the heal', async () => (await heals(fleet)).some(({ outcome }) => outcome === 'done'));
    expect((await heals(fleet)).map(({ unit }) => unit)).toEqual(['app-last.service']);
    await waitFor('its incident to go', async () => (await openIncidents(fleet, 'unit_failed')).length === 0);
    const main = new URL('../../src/main.ts', import.meta.url).pathname;
    const command = (...args: string[]) =>
      machine.try(process.execPath, [main, ...args], { env: { ...env, DATABASE_URL: fleet.url, RECLAIMD_HEAL_SETTLE: '0s' } });
    expect(await command('heal', 'app-db', '--actor', 'ann@desk')).toMatchObject({ code: 3, stdout: expect.stringContaining('refused') });
    const told = /RECLAIMD_UNITS: lone\.service is another name of outside\.service: name that/;
    expect((await command('units')).stdout).toMatch(told);
    expect((await command('doctor')).stdout).toMatch(told);
    expect(await machine.run('journalctl', ['--unit=reclaimd', '--output=cat'])).toMatch(told);
  });

  test('units that were stopped, and a desired one that does not exist, are at rest: systemd has time for others', async () => {
    const fleet = await createMachineFleet();
    const env = { RECLAIMD_UNITS: 'app@ app-never last', RECLAIMD_UNITS_DESIRED: 'app-never' };
    const machine = await fleet.addMachine('alpha', { env });
    const sleeps = '[Service]\nExecStart=/bin/sleep 600\n';
    await machine.writeUnits({ 'app@.service': sleeps, 'other.service': sleeps, 'last.service': sleeps });
    const instances = Array.from({ length: 30 }, (_, index) => `app@${index}`);
    await machine.run('systemctl', ['start', 'last', ...instances]);
    await machine.run('systemctl', ['stop', ...instances]);
    // Healed, so the daemon has looked at all of them.
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'last']);
    await waitFor('the heal', async () => (await heals(fleet)).some(({ outcome }) => outcome === 'done'));
    expect(await countUnitSignals(machine, 3_000)).toBeLessThan(10);
    const startedAt = performance.now();
    await machine.run('systemctl', ['start', 'other']);
    expect(performance.now() - startedAt).toBeLessThan(5_000);
  });

  test('two machines with the same unit names: each heals its own', async () => {
    const fleet = await createMachineFleet();
    const env = { RECLAIMD_UNITS: 'app' };
    const [alpha, beta] = await Promise.all([fleet.addMachine('alpha', { env }), fleet.addMachine('beta', { env })]);
    for (const machine of [alpha, beta]) {
      await machine.writeUnit('app.service', '[Service]\nExecStart=/bin/sleep 600\n');
      await machine.run('systemctl', ['start', 'app']);
    }
    const untouched = await beta.property('app', 'InvocationID');
    await alpha.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    await waitFor('the heal', async () => (await heals(fleet)).some(({ outcome }) => outcome === 'done'));
    expect(await heals(fleet)).toMatchObject([{ host: 'alpha', unit: 'app.service', outcome: 'done' }]);
    expect(await isActive(alpha, 'app')).toBe(true);
    expect(await beta.property('app', 'InvocationID')).toBe(untouched);
  });

  test('RECLAIMD_HEAL=off reports, and touches nothing', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', { env: { RECLAIMD_UNITS: 'app', RECLAIMD_HEAL: 'off' } });
    await machine.writeUnit('app.service', '[Service]\nExecStart=/bin/sleep 600\n');
    await machine.run('systemctl', ['start', 'app']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    const [incident] = await waitFor('the incident', async () => {
      const open = await openIncidents(fleet, 'unit_failed');
      return open.length === 1 && open;
    });
    expect(incident?.evidence).toMatchObject({ result: 'signal', exitStatus: 9, withheld: 'RECLAIMD_HEAL is off' });
    expect(await heals(fleet)).toEqual([]);
    // What failed has failed, though its file goes.
    await machine.run('rm', ['/etc/systemd/system/app.service']);
    await machine.run('systemctl', ['daemon-reload']);
    await waitFor('that to be told', async () => {
      const open = await openIncidents(fleet, 'unit_failed');
      expect(open.length).toBe(1);
      return open[0]?.evidence['withheld'] === 'its unit file is gone';
    });
  });

  test('the commands on the machine itself: units shows it, heal heals it, a name outside the list is refused', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', { env: { RECLAIMD_UNITS: 'app', RECLAIMD_HEAL: 'off' } });
    await machine.writeUnits({
      'app.service': '[Service]\nExecStart=/bin/sleep 600\n',
      'secret.service': '[Service]\nExecStart=/bin/sleep 600\n',
    });
    await machine.run('systemctl', ['start', 'app']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'app']);
    const env = { DATABASE_URL: fleet.url, RECLAIMD_UNITS: 'app', RECLAIMD_HEAL_SETTLE: '500ms' };
    const main = new URL('../../src/main.ts', import.meta.url).pathname;
    const command = (...args: string[]) =>
      machine.try(process.execPath, [main, ...args, ...(args[0] === 'heal' ? ['--actor', 'ann@desk'] : [])], { env });
    await waitFor('it to have failed', async () => (await machine.property('app', 'ActiveState')) === 'failed');
    expect((await command('units')).stdout).toMatch(/app\.service\s+failed\s+signal/);
    expect(await command('heal', 'secret')).toMatchObject({ code: 3, stdout: expect.stringContaining('refused secret.service') });
    expect(await command('heal', 'x;reboot')).toMatchObject({ code: 3 });
    expect(await command('heal', 'app')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('healed app.service'),
    });
    expect(await isActive(machine, 'app')).toBe(true);
  });
});
