import { expect, test } from 'vitest';
import { describeWithMachine } from '../support/describe-with-machine.ts';
import { createMachineFleet, waitForAdopted } from '../support/machine-fleet.ts';
import { waitFor } from '../support/wait.ts';

describeWithMachine('workers that are units', () => {
  test('killed: its jobs are back, the restarted unit takes them, the crash names its unit, result and attempts', async () => {
    const fleet = await createMachineFleet([{ name: 'mail', retryLimit: 5 }]);
    const machine = await fleet.addMachine('alpha', { worker: { batchSize: 3 } });
    await fleet.boss.insert('mail', [{}, {}, {}]);
    await machine.run('systemctl', ['start', 'worker@1']);
    const [first] = await waitForAdopted(fleet, 'alpha', 1);
    expect(first?.unit).toBe('worker@1.service');
    await waitFor('the jobs to be active', async () => (await fleet.boss.findJobs('mail')).every(({ state }) => state === 'active'));
    const invocation = await machine.property('worker@1', 'InvocationID');
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'worker@1']);
    await waitFor('the next life to run them again', async () =>
      (await fleet.boss.findJobs('mail')).every(({ state, retryCount }) => state === 'active' && retryCount === 1),
    );
    const [crash] = await waitFor('the crash', async () => {
      const rows = await fleet.database.query('SELECT unit, invocation, result, exit_code, exit_status, attempt_count FROM unit_crash');
      return rows.length === 1 && rows;
    });
    expect(crash).toEqual({
      unit: 'worker@1.service',
      invocation,
      result: 'signal',
      exit_code: 'killed',
      exit_status: 9,
      attempt_count: 3,
    });
    expect(await fleet.database.query('SELECT executor_id FROM recovery')).toEqual([
      { executor_id: first?.id },
      { executor_id: first?.id },
      { executor_id: first?.id },
    ]);
    expect(await machine.property('worker@1', 'NRestarts')).toBe('1');
  });

  test('a wrapper as main process: the worker below it decides', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', { env: { RECLAIMD_HEAL: 'off' }, service: 'Restart=no\nKillMode=process' });
    const worker = /^ExecStart=(.*)$/m.exec(await machine.run('cat', ['/etc/systemd/system/worker@.service']))?.[1] ?? '';
    const wrapped = `[Service]\nExecStart=/bin/sh -c '"$$@" & wait; exec sleep 600' wrapper ${worker}\nKillMode=process\n`;
    await machine.writeUnit('worker@.service', wrapped);
    await fleet.boss.send('mail', {});
    await machine.run('systemctl', ['start', 'worker@1']);
    const [life] = await waitForAdopted(fleet, 'alpha', 1);
    await waitFor('the job to be active', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'active');
    expect(String(life?.pid)).not.toBe(await machine.property('worker@1', 'MainPID'));
    // The unit ends, the worker does not: its jobs are not touched.
    await machine.run('systemctl', ['kill', '--signal=KILL', '--kill-whom=main', 'worker@1']);
    await waitFor('the unit to have failed', async () => (await machine.property('worker@1', 'ActiveState')) === 'failed');
    expect((await fleet.boss.findJobs('mail'))[0]?.state).toBe('active');
    await machine.run('kill', ['-KILL', String(life?.pid)]);
    await waitFor('the job to be back', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'retry');
  });

  test('systemctl restart of ten workers at work, as in a deploy: no job run twice, none lost', async () => {
    const fleet = await createMachineFleet([{ name: 'mail', retryLimit: 0 }]);
    const machine = await fleet.addMachine('alpha', { worker: { mode: 'sleep', jobMs: 200 } });
    const instances = Array.from({ length: 10 }, (_, index) => `worker@${index + 1}`);
    await machine.run('systemctl', ['start', ...instances]);
    await waitForAdopted(fleet, 'alpha', 10);
    await fleet.boss.insert(
      'mail',
      Array.from({ length: 150 }, () => ({})),
    );
    await machine.run('systemctl', ['restart', ...instances]);
    await waitFor('all to be done', async () => (await fleet.boss.findJobs('mail')).every(({ state }) => state === 'completed'));
    expect((await fleet.boss.findJobs('mail')).every(({ retryCount }) => retryCount === 0)).toBe(true);
    expect(await fleet.database.query('SELECT FROM recovery')).toEqual([]);
    expect(await fleet.database.query('SELECT FROM unit_crash')).toEqual([]);
    expect((await fleet.boss.findJobs('mail')).length).toBe(150);
  });

  test('a unit that is being stopped drains: alive until it has ended, an orphan when it is killed at the end of its time', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', { service: 'Restart=no\nKillSignal=SIGCONT\nTimeoutStopSec=6' });
    await fleet.boss.send('mail', {});
    await machine.run('systemctl', ['start', 'worker@1']);
    const [life] = await waitForAdopted(fleet, 'alpha', 1);
    await waitFor('the job to be active', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'active');
    await machine.run('systemctl', ['stop', '--no-block', 'worker@1']);
    await waitFor(
      'the drain to be noted',
      async () => (await fleet.database.query('SELECT FROM executor WHERE id = $1 AND draining', [life?.id])).length === 1,
    );
    expect((await fleet.boss.findJobs('mail'))[0]?.state).toBe('active');
    await waitFor('the job to be back', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'retry');
    const crash = await waitFor('the crash', async () => (await fleet.database.query('SELECT result FROM unit_crash'))[0]);
    expect(crash).toEqual({ result: 'timeout' });
    // A person stopped it: it stays down.
    expect(await machine.property('worker@1', 'ActiveState')).toBe('failed');
    expect(await fleet.database.query('SELECT FROM unit_action')).toEqual([]);
  });

  test('a watchdog that kills and a lack of memory are told apart', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', {
      env: { RECLAIMD_HEAL: 'off' },
      service: 'Restart=no\nWatchdogSec=8s\nNotifyAccess=all',
    });
    const crashes = (count: number) =>
      waitFor(`${count} crashes`, async () => {
        const rows = await fleet.database.query<{ unit: string; result: string }>('SELECT unit, result FROM unit_crash ORDER BY unit');
        return rows.length === count && rows;
      });
    await machine.run('systemctl', ['start', 'worker@1']);
    await waitForAdopted(fleet, 'alpha', 1);
    expect(await crashes(1)).toEqual([{ unit: 'worker@1.service', result: 'watchdog' }]);
    const worker = /^ExecStart=.*$/m.exec(await machine.run('cat', ['/etc/systemd/system/worker@.service']))?.[0];
    await machine.writeUnit('hungry.service', `[Service]\n${worker}\n`);
    await machine.run('systemctl', ['start', 'hungry']);
    await waitForAdopted(fleet, 'alpha', 1);
    // The machine has no memory of its own to run out of: what systemd-oomd leaves on the control group of a unit that it kills.
    const group = `/sys/fs/cgroup${await machine.property('hungry', 'ControlGroup')}`;
    const mark = 'import os, sys; [os.setxattr(sys.argv[1], name, b"1") for name in ("user.oomd_ooms", "user.oomd_kill")]';
    await machine.run('/usr/bin/python3', ['-c', mark, group]);
    await machine.run('systemctl', ['kill', '--signal=KILL', 'hungry']);
    expect((await crashes(2))[0]).toEqual({ unit: 'hungry.service', result: 'oom-kill' });
  });

  test('after a power cut no old pid is believed, and the jobs are back', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha');
    await fleet.boss.send('mail', {});
    await machine.run('systemctl', ['start', 'worker@1']);
    const [life] = await waitForAdopted(fleet, 'alpha', 1);
    await waitFor('the job to be active', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'active');
    await machine.reboot();
    // So slow a boot that its silence alone would do: the boot is told all the same.
    await waitFor(
      'a long silence',
      async () => (await fleet.database.query(`SELECT FROM executor WHERE beat_at < now() - interval '16 s'`)).length === 1,
    );
    await machine.run('systemctl', ['start', 'reclaimd']);
    await waitFor('the job to be back', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'retry');
    expect(await fleet.database.query('SELECT proof FROM executor WHERE id = $1', [life?.id])).toEqual([{ proof: 'host_rebooted' }]);
  });

  test('RECLAIMD_HUNG_AFTER: the unit of a worker that hangs is restarted, and only what is proven gone is given back', async () => {
    const fleet = await createMachineFleet([{ name: 'mail', retryLimit: 5 }]);
    // All of the fleet hangs together, which the brake would hold.
    const env = { RECLAIMD_HUNG_AFTER: '10s', RECLAIMD_UNITS: 'worker@ wrapped', RECLAIMD_BRAKE_MINIMUM: '10' };
    // Woken by the stop, it says no goodbye: it is killed at the end of its time.
    const machine = await fleet.addMachine('alpha', { env, service: 'Restart=always\nRestartSec=100ms\nKillSignal=SIGCONT' });
    const worker = /^ExecStart=(.*)$/m.exec(await machine.run('cat', ['/etc/systemd/system/worker@.service']))?.[1] ?? '';
    // Its worker outlives every stop of it.
    const wrapped = `[Service]\nExecStart=/bin/sh -c 'test -e /run/again || { touch /run/again; "$$@" & }; wait; exec sleep 600' wrapper ${worker}\nKillMode=process\n`;
    await machine.writeUnit('wrapped.service', wrapped);
    await fleet.boss.insert('mail', [{}, {}]);
    await machine.run('systemctl', ['start', 'worker@1', 'wrapped']);
    const lives = await waitForAdopted(fleet, 'alpha', 2);
    await waitFor('the jobs to be active', async () => (await fleet.boss.findJobs('mail')).every(({ state }) => state === 'active'));
    // Its stop waits for that of a unit which ends before it.
    const lasting =
      '[Unit]\nAfter=worker@2.service\n[Service]\nExecStart=/bin/sleep 600\nExecStop=/bin/sleep 600\nTimeoutStopSec=infinity\n';
    await machine.writeUnit('lasting.service', lasting);
    await machine.run('systemctl', ['start', 'worker@2', 'lasting']);
    for (const { pid } of await waitForAdopted(fleet, 'alpha', 3)) await machine.run('kill', ['-STOP', String(pid)]);
    await machine.run('systemctl', ['stop', '--no-block', 'lasting', 'worker@2']);
    const ended = await waitFor('both restarts to end', async () => {
      const rows = await fleet.database.query<{ unit: string; outcome: string; error: string | null }>(
        `SELECT unit, action, actor, automatic, outcome, error FROM unit_action WHERE outcome <> 'not_needed' ORDER BY unit`,
      );
      return rows.length === 2 && rows;
    });
    await waitFor('the one that is to be stopped to be left alone', async () => {
      const rows = await fleet.database.query<{ outcome: string }>(`SELECT outcome FROM unit_action WHERE unit = 'worker@2.service'`);
      expect(rows.filter(({ outcome }) => outcome !== 'not_needed' && outcome !== null)).toEqual([]);
      return rows.length > 0;
    });
    expect(await machine.run('systemctl', ['list-jobs'])).toMatch(/worker@2\.service +stop +waiting/);
    const [plain, survivor] = ['worker@1.service', 'wrapped.service'].map((unit) => lives.find((life) => life.unit === unit));
    const asked = { action: 'unit_restart', actor: 'reclaimd@alpha', automatic: true };
    expect(ended).toEqual([
      { ...asked, unit: 'worker@1.service', outcome: 'done', error: null },
      { ...asked, unit: 'wrapped.service', outcome: 'failed', error: expect.stringContaining(`processes ${survivor?.pid} are left`) },
    ]);
    const pidsOf = async (unit: string) =>
      machine.run('cat', [`/sys/fs/cgroup${await machine.property(unit, 'ControlGroup')}/cgroup.procs`]);
    expect((await pidsOf('worker@1')).split('\n')).not.toContain(String(plain?.pid));
    expect((await pidsOf('wrapped')).split('\n')).toContain(String(survivor?.pid));
    await waitFor('another life to run the job', async () =>
      (await fleet.boss.findJobs('mail')).some(({ retryCount }) => retryCount === 1),
    );
    expect(
      await fleet.database.query(
        `SELECT r.executor_id AS executor, r.recovered_at >= e.dead_at AS "afterItsEnd" FROM recovery r JOIN executor e ON e.id = r.executor_id`,
      ),
    ).toEqual([{ executor: plain?.id, afterItsEnd: true }]);
    await machine.run('kill', ['-KILL', String(survivor?.pid)]);
    await waitFor('the other job to be back', async () =>
      (await fleet.boss.findJobs('mail')).every(({ state, retryCount }) => state === 'retry' || retryCount === 1),
    );
    expect((await fleet.database.query(`SELECT FROM unit_action WHERE unit = 'wrapped.service'`)).length).toBe(1);
  });
});
