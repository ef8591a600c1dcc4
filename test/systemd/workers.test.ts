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
    const machine = await fleet.addMachine('alpha', { service: 'Restart=no\nKillMode=process' });
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
    await waitFor('all to be done', async () => (await fleet.boss.findJobs('mail')).every(({ state }) => state === 'completed'), 60_000);
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
    await waitFor('the job to be back', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'retry', 30_000);
    const crash = await waitFor('the crash', async () => (await fleet.database.query('SELECT result FROM unit_crash'))[0]);
    expect(crash).toEqual({ result: 'timeout' });
    // A person stopped it: it stays down.
    expect(await machine.property('worker@1', 'ActiveState')).toBe('failed');
    expect(await fleet.database.query('SELECT FROM unit_action')).toEqual([]);
  });

  test('a watchdog that kills is told apart', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', { service: 'Restart=no\nWatchdogSec=1500ms\nNotifyAccess=all' });
    await machine.run('systemctl', ['start', 'worker@1']);
    const crash = await waitFor('the crash', async () => (await fleet.database.query('SELECT result FROM unit_crash'))[0], 30_000);
    expect(crash).toEqual({ result: 'watchdog' });
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
      30_000,
    );
    await machine.run('systemctl', ['start', 'reclaimd']);
    await waitFor('the job to be back', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'retry', 30_000);
    expect(await fleet.database.query('SELECT proof FROM executor WHERE id = $1', [life?.id])).toEqual([{ proof: 'host_rebooted' }]);
  });

  test('RECLAIMD_HUNG_AFTER: the unit of a worker that hangs is restarted, and only then are its jobs given back', async () => {
    const fleet = await createMachineFleet();
    const machine = await fleet.addMachine('alpha', { env: { RECLAIMD_HUNG_AFTER: '10s' } });
    await fleet.boss.send('mail', {});
    await machine.run('systemctl', ['start', 'worker@1']);
    const [life] = await waitForAdopted(fleet, 'alpha', 1);
    await waitFor('the job to be active', async () => (await fleet.boss.findJobs('mail'))[0]?.state === 'active');
    await machine.run('kill', ['-STOP', String(life?.pid)]);
    await waitFor('another life to run it', async () => (await fleet.boss.findJobs('mail'))[0]?.retryCount === 1, 50_000);
    // systemd wakes what it stops: the old life says goodbye, or is killed after its time.
    expect(
      await fleet.database.query('SELECT proof IS NOT NULL OR stopped_at IS NOT NULL AS ended FROM executor WHERE id = $1', [life?.id]),
    ).toEqual([{ ended: true }]);
    expect(await fleet.database.query('SELECT action, actor, automatic FROM unit_action')).toEqual([
      { action: 'unit_restart', actor: 'reclaimd@alpha', automatic: true },
    ]);
  });
});
