import { randomUUID } from 'node:crypto';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import type { UnitChange } from '../../src/actions/unit-manager.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { createUnitManager } from '../../src/systemd/unit-manager.ts';
import { silentLog } from '../support/database.ts';
import { describeWithMachine } from '../support/describe-with-machine.ts';
import { type Machine, startMachine } from '../support/systemd-machine.ts';
import { countUnitSignals } from '../support/unit-signals.ts';
import { waitFor } from '../support/wait.ts';

const LIMITS = { callMs: 2_000, jobMs: 10_000, backoffMs: 200 };

function manage(socket: string) {
  const manager = createUnitManager(socket, { clock: systemClock, log: silentLog }, LIMITS);
  onTestFinished(() => manager.close());
  return manager;
}

describeWithMachine('units over a real D-Bus', () => {
  let machine: Machine;
  const socket = () => machine.busAddress.replace('unix:path=', '');
  beforeAll(async () => {
    machine = await startMachine({ hostname: 'alpha' });
    await machine.writeUnits({
      'sleeper@.service': '[Service]\nExecStart=/bin/sleep 600\n',
      'failing.service': '[Service]\nExecStart=/bin/sh -c "exit 3"\n',
      'limited.service': '[Unit]\nStartLimitBurst=2\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=0\n',
      'killed.service': '[Service]\nExecStart=/bin/sleep 600\n',
      'restarting.service': '[Service]\nExecStart=/bin/sleep 600\nRestart=always\nRestartSec=0\n',
      'odd\\x20name.service': '[Service]\nExecStart=/bin/sleep 600\n',
      'hub.service': '[Unit]\nWants=wanted.service\n[Service]\nExecStart=/bin/sleep 600\n',
      'part.service': '[Unit]\nPartOf=hub.service\n[Service]\nExecStart=/bin/sleep 600\n',
      'bound.service': '[Unit]\nBindsTo=hub.service\nAfter=hub.service\n[Service]\nExecStart=/bin/sleep 600\n',
      'wanted.service': '[Service]\nExecStart=/bin/sleep 600\n',
      'slow.service': '[Service]\nType=notify\nExecStart=/bin/sleep 600\nTimeoutStartSec=60\n',
    });
  });
  afterAll(() => machine?.stop());

  test('lists by patterns with the whole status, instances and odd names too, and nothing else', async () => {
    const units = manage(socket());
    await machine.run('systemctl', ['start', 'sleeper@1', 'sleeper@2', 'odd\\x20name.service']);
    await machine.try('systemctl', ['start', 'failing.service']);
    await waitFor('the failure', async () => (await machine.property('failing.service', 'ActiveState')) === 'failed');
    const listed = await units.list(['sleeper@*.service', 'failing.service', 'odd*']);
    expect(listed).toMatchObject([
      { unit: 'failing.service', activeState: 'failed', result: 'exit-code', exitCode: 'exited', exitStatus: 3, unitFileState: 'static' },
      { unit: 'odd\\x20name.service', activeState: 'active' },
      { unit: 'sleeper@1.service', activeState: 'active', subState: 'running', restarts: 0, exitCode: undefined },
      { unit: 'sleeper@2.service', activeState: 'active' },
    ]);
    const [sleeper] = listed.slice(2);
    expect(sleeper?.invocationId).toBe(await machine.property('sleeper@1', 'InvocationID'));
    expect(String(sleeper?.mainPid)).toBe(await machine.property('sleeper@1', 'MainPID'));
    expect(sleeper?.controlGroup).toBe(await machine.property('sleeper@1', 'ControlGroup'));
    expect(sleeper?.activeEnteredAt).toBeGreaterThan(0);
    expect(await units.listProcesses('sleeper@1.service')).toEqual([sleeper?.mainPid]);
    expect((await units.list(['sleeper@*', 'failing.service'], ['failed'])).map(({ unit }) => unit)).toEqual(['failing.service']);
    expect(await units.list(['no-such*'])).toEqual([]);
  });

  test('what is not there, or no name at all, is nobody', async () => {
    const units = manage(socket());
    expect(await units.read('no-such.service')).toBeUndefined();
    expect(await units.read('no name; reboot')).toBeUndefined();
    expect(await units.read('killed.service')).toMatchObject({ activeState: 'inactive', mainPid: 0, invocationId: '' });
  });

  test('start, restart, stop and reset-failed wait for their jobs and say how they ended', async () => {
    const units = manage(socket());
    expect(await units.start('killed.service')).toBe('done');
    const first = await units.read('killed.service');
    expect(await units.restart('killed.service')).toBe('done');
    expect((await units.read('killed.service'))?.invocationId).not.toBe(first?.invocationId);
    expect(await units.stop('killed.service')).toBe('done');
    expect(await units.read('killed.service')).toMatchObject({ activeState: 'inactive' });
    await machine.try('systemctl', ['start', 'limited.service']);
    await waitFor('the start limit', async () => (await units.read('limited.service'))?.activeState === 'failed');
    expect(await units.start('limited.service')).toBe('failed');
    await units.resetFailed('limited.service');
    expect(await units.read('limited.service')).toMatchObject({ activeState: 'inactive' });
    await expect(units.start('no-such.service')).rejects.toThrow('not found');
  });

  test('a stop that waits for others is seen, by a look at the unit and in a list that was read before', async () => {
    const units = manage(socket());
    await machine.writeUnit(
      'last.service',
      '[Unit]\nAfter=killed.service\n[Service]\nExecStart=/bin/sleep 600\nExecStop=/bin/sh -c "until test -e /run/go; do sleep 0.1; done"\n',
    );
    await machine.run('systemctl', ['start', 'killed', 'last']);
    expect(await units.list(['killed.service'])).toMatchObject([{ activeState: 'active', job: null }]);
    await machine.run('systemctl', ['stop', '--no-block', 'last', 'killed']);
    const seen = { activeState: 'active', job: 'stop' };
    expect([await units.list(['killed.service']), await units.read('killed.service')]).toMatchObject([[seen], seen]);
    await machine.run('touch', ['/run/go']);
    await waitFor('its end', async () => (await units.list(['killed.service']))[0]?.activeState !== 'active');
  });

  test('a job is about its unit alone', async () => {
    const units = manage(socket());
    await machine.run('systemctl', ['start', 'hub', 'part', 'bound']);
    await machine.run('systemctl', ['stop', 'wanted']);
    const mainPids = () => Promise.all(['part', 'bound', 'wanted'].map((unit) => machine.property(unit, 'MainPID')));
    const before = await mainPids();
    expect(await units.restart('hub.service')).toBe('done');
    expect(await mainPids()).toEqual(before);
    expect(before.map((pid) => pid === '0')).toEqual([false, false, true]);
    expect(await units.stop('hub.service')).toBe('done');
    expect(await units.start('hub.service')).toBe('done');
    // What is bound to it goes with it all the same: systemd allows no other.
    expect((await mainPids()).filter((_, index) => index !== 1)).toEqual([before[0], '0']);
  });

  test('a list that was read before notices what changed since, a restart to the same state too', async () => {
    const units = manage(socket());
    await machine.run('systemctl', ['restart', 'restarting.service']);
    const [before] = await units.list(['restarting.service']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'restarting.service']);
    const after = await waitFor('the restart', async () => {
      const [now] = await units.list(['restarting.service']);
      return now?.activeState === 'active' && now.invocationId !== before?.invocationId && now;
    });
    expect(after).toMatchObject({ restarts: (before?.restarts ?? 0) + 1 });
  });

  test('watchers hear of what they want, as it then is', async () => {
    const units = manage(socket());
    const heard: UnitChange[] = [];
    await units.list(['*.service']);
    const unwatch = units.watch(
      (unit) => unit === 'killed.service',
      (change) => heard.push(change),
    );
    await machine.run('systemctl', ['start', 'killed.service', 'sleeper@3']);
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'killed.service']);
    await waitFor('the end to be heard', () =>
      heard.some((change) => change.kind === 'changed' && change.status?.activeState === 'failed' && change.status.result === 'signal'),
    );
    expect(heard.every((change) => change.kind === 'changed' && change.unit === 'killed.service')).toBe(true);
    unwatch();
    const count = heard.length;
    await machine.run('systemctl', ['start', 'killed.service']);
    await units.list(['killed.service']);
    expect(heard).toHaveLength(count);
  });

  test('a unit that systemd unloads is told of once, one that never ran not at all, and telling loads none', async () => {
    const units = manage(socket());
    const heard: UnitChange[] = [];
    const wanted = ['sleeper@7.service', 'no-such.service'];
    units.watch(
      (unit) => wanted.includes(unit),
      (change) => heard.push(change),
    );
    const changes = () => heard.flatMap((change) => (change.kind === 'changed' ? [change] : []));
    await machine.run('systemctl', ['start', 'sleeper@7']);
    await waitFor('the start to be heard', () => changes().some(({ status }) => status?.activeState === 'active'));
    await machine.run('systemctl', ['stop', 'sleeper@7']);
    await units.read('no-such.service');
    await waitFor('the end to be heard', () => changes().at(-1)?.status === undefined);
    expect(await countUnitSignals(machine, 3_000)).toBeLessThan(10);
    expect(changes().filter(({ status }) => status === undefined)).toMatchObject([{ unit: 'sleeper@7.service' }]);
  });

  test('a bus that dies fails what waits, at once; when it is back, everything works again and watchers are told', async () => {
    const units = manage(socket());
    const heard: UnitChange[] = [];
    await units.list(['slow.service']);
    units.watch(
      () => true,
      (change) => heard.push(change),
    );
    const waiting = units.start('slow.service');
    waiting.catch(() => undefined);
    await waitFor('the job', async () => (await machine.property('slow.service', 'ActiveState')) === 'activating');
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'dbus.service']);
    await expect(waiting).rejects.toThrow('went away');
    await waitFor('to be told', () => heard.some(({ kind }) => kind === 'reconnected'));
    expect(units.state).toBe('connected');
    expect(await units.list(['slow.service'])).toMatchObject([{ activeState: 'activating' }]);
    heard.length = 0;
    await machine.run('systemctl', ['start', 'sleeper@9']);
    await waitFor('signals', () => heard.some((change) => change.kind === 'changed' && change.unit === 'sleeper@9.service'));
    await machine.run('systemctl', ['stop', 'slow.service']);
  });

  test('another user who tells us that a job is done is not believed', async () => {
    const units = manage(socket());
    await units.list(['slow.service']);
    let result: string | undefined;
    const job = units.start('slow.service').then((ended) => {
      result = ended;
    });
    await waitFor('the job', async () => (await machine.property('slow.service', 'ActiveState')) === 'activating');
    const [number] = (await machine.run('systemctl', ['list-jobs', '--no-legend', 'slow.service'])).trim().split(' ');
    const names = (await machine.run('busctl', ['list', '--unique', '--no-legend'])).match(/^:\S+/gm) ?? [];
    const lie = [`uint32:${number}`, `objpath:/org/freedesktop/systemd1/job/${number}`, 'string:slow.service', 'string:done'];
    for (const name of names) {
      const words = [
        '--system',
        '--type=signal',
        `--dest=${name}`,
        '/org/freedesktop/systemd1',
        'org.freedesktop.systemd1.Manager.JobRemoved',
      ];
      await machine.run('dbus-send', [...words, ...lie], { user: 'nobody' });
    }
    // Asked for after the lies were told: what is answered now has come after them.
    await units.list(['slow.service']);
    expect(result).toBeUndefined();
    await machine.run('systemctl', ['stop', 'slow.service']);
    await job;
    expect(result).toBe('canceled');
  });

  test('a user without the right is denied, and told so; nothing is done', async () => {
    await machine.run('systemctl', ['start', 'sleeper@4']);
    const script = `
      import { createUnitManager } from ${JSON.stringify(new URL('../../src/systemd/unit-manager.ts', import.meta.url).href)};
      import { systemClock } from ${JSON.stringify(new URL('../../src/runtime/clock.ts', import.meta.url).href)};
      import { createLogger } from ${JSON.stringify(new URL('../../src/runtime/logger.ts', import.meta.url).href)};
      const units = createUnitManager('/run/dbus/system_bus_socket', { clock: systemClock, log: createLogger('silent', 'x') });
      const { activeState } = await units.read('sleeper@4.service');
      const denied = await units.stop('sleeper@4.service').catch((error) => error.name);
      console.log(activeState, denied);
      units.close();`;
    expect(await machine.run(process.execPath, ['--input-type=module', '-e', script], { user: 'nobody' })).toBe('active BusDenied\n');
    expect(await machine.property('sleeper@4', 'ActiveState')).toBe('active');
  });
});

test('a bus that is not there, or accepts and never answers, fails within the limit and is no empty list', async () => {
  const socket = join(tmpdir(), `reclaimd-bus-${randomUUID()}`);
  await expect(manage(socket).list(['*'])).rejects.toThrow('ENOENT');
  const accepted: string[] = [];
  const mute = createServer((connection) => connection.on('data', (data) => accepted.push(data.toString('latin1'))));
  await new Promise<void>((done) => mute.listen(socket, done));
  onTestFinished(() => new Promise<void>((done) => mute.close(() => done())));
  const units = manage(socket);
  await expect(units.list(['*'])).rejects.toThrow(/not answered/);
  expect(accepted.join('')).toContain('AUTH EXTERNAL');
  expect(units.state).not.toBe('connected');
  units.close();
});
