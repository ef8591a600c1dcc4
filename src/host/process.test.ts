import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { isPidAmbiguous, openProcess, readBootId } from './process.ts';

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('the condition never came');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('a living process is in sight with its start and age; a dead one is gone, and stays gone', async () => {
  const child = spawn('sleep', ['60']);
  const handle = openProcess(child.pid ?? 0);
  expect(handle).toMatchObject({ pid: child.pid });
  expect(handle?.startTicks).toBeGreaterThan(0);
  expect(handle?.ageSeconds).toBeLessThan(10);
  expect(handle?.isGone()).toBe(false);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(handle?.isGone()).toBe(true);
  expect(openProcess(child.pid ?? 0)).toBeUndefined();
  handle?.close();
});

test('a stopped process is not gone', async () => {
  const child = spawn('sleep', ['60']);
  const handle = openProcess(child.pid ?? 0);
  child.kill('SIGSTOP');
  expect(handle?.isGone()).toBe(false);
  child.kill('SIGKILL');
  await once(child, 'exit');
});

test('a zombie, which nobody has waited for, is gone', async () => {
  // The shell execs into a sleep that never waits for the child it left behind.
  const parent = spawn('sh', ['-c', 'sleep 0.2 & echo $!; exec sleep 60']);
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(line.toString());
  const handle = openProcess(pid);
  expect(handle?.isGone()).toBe(false);
  await until(() => handle?.isGone() === true);
  parent.kill('SIGKILL');
  await once(parent, 'exit');
});

test('no process, no handle; a boot has an id', () => {
  expect(openProcess(2 ** 22)).toBeUndefined();
  expect(readBootId()).toMatch(/^[0-9a-f-]{36}$/);
});

// Making a pid namespace takes root.
test.skipIf(process.getuid?.() !== 0)('a pid that a process in a namespace of its own carries too is ambiguous', async () => {
  expect(isPidAmbiguous(process.pid)).toBe(false);
  const inner = spawn('unshare', ['--pid', '--fork', '--kill-child', 'sleep', '60']);
  // The namespace's first process has pid 1 inside, like ours outside.
  await until(() => isPidAmbiguous(1));
  inner.kill('SIGKILL');
  await once(inner, 'exit');
});
