import { readdirSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { describeWithMachine } from '../support/describe-with-machine.ts';
import { startMachine } from '../support/systemd-machine.ts';
import { waitFor } from '../support/wait.ts';

async function machineNamed(name: string) {
  const machine = await startMachine({ hostname: name });
  onTestFinished(() => machine.stop());
  return machine;
}

describeWithMachine('the machines that other tests run on', () => {
  test('are apart from each other and from this host', async () => {
    const kept = await mkdtemp(join(tmpdir(), 'reclaimd-kept-'));
    onTestFinished(() => rm(kept, { recursive: true }));
    const [alpha, beta] = await Promise.all([machineNamed('alpha'), machineNamed('beta')]);
    expect(await alpha.run('hostname')).toBe('alpha\n');
    expect(hostname()).not.toBe('alpha');
    expect(await alpha.run('systemctl', ['is-system-running'])).toBe('running\n');
    expect(await alpha.run('cat', ['/proc/sys/kernel/random/boot_id'])).toBe(`${alpha.bootId}\n`);

    await alpha.writeUnit('sleeper.service', '[Service]\nExecStart=/bin/sleep 600\n');
    await alpha.run('systemctl', ['start', 'sleeper.service']);
    expect(await alpha.property('sleeper.service', 'ActiveState')).toBe('active');
    expect(await beta.property('sleeper.service', 'LoadState')).toBe('not-found');

    await writeFile(alpha.path('/tmp/only-there'), '');
    await writeFile(alpha.path('/usr/only-there'), '');
    await alpha.run('ls', ['/tmp/only-there', '/usr/only-there']);
    expect(readdirSync('/usr')).not.toContain('only-there');
    expect(readdirSync(tmpdir())).toContain(basename(kept));
    expect(readdirSync(tmpdir())).not.toContain('only-there');
  });

  test('have a journal, and this checkout, for any user', async () => {
    const machine = await machineNamed('alpha');
    await machine.writeUnit('talker.service', '[Service]\nType=oneshot\nExecStart=/bin/echo said it\n');
    await machine.run('systemctl', ['start', 'talker.service']);
    await waitFor('the line', async () => (await machine.run('journalctl', ['-u', 'talker.service'])).includes('said it'));
    const script = `import(${JSON.stringify(import.meta.resolve('pg-boss'))}).then(() => console.log(process.getuid()))`;
    expect(await machine.run(process.execPath, ['-e', script], { user: 'nobody' })).toBe('65534\n');
  });

  test('come back from a power cut with the same units and nothing that ran', async () => {
    const machine = await machineNamed('alpha');
    const { bootId, pid } = machine;
    await machine.writeUnit('sleeper.service', '[Service]\nExecStart=/bin/sleep 600\n');
    await machine.run('systemctl', ['start', 'sleeper.service']);
    await machine.reboot();
    expect([machine.bootId, machine.pid]).not.toEqual([bootId, pid]);
    expect(await machine.property('sleeper.service', 'LoadState')).toBe('loaded');
    expect(await machine.property('sleeper.service', 'ActiveState')).toBe('inactive');
  });

  test('say why a command failed', async () => {
    const machine = await machineNamed('alpha');
    await expect(machine.run('systemctl', ['start', 'no-such.service'])).rejects.toThrow(/no-such\.service not found/);
  });
});
