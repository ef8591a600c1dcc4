import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { hidesProcesses, isPidAmbiguous, openProcess, readBootId } from './process.ts';

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('the condition never came');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function openLiving(pid: number | undefined) {
  const handle = openProcess(pid ?? 0);
  if (typeof handle === 'string') throw new Error(`process ${pid} is ${handle}`);
  return handle;
}

test('a living process is in sight with its start and age; a dead one is gone, and stays gone', async () => {
  const child = spawn('sleep', ['60']);
  const handle = openLiving(child.pid);
  expect(handle).toMatchObject({ pid: child.pid });
  expect(handle.startTicks).toBeGreaterThan(0);
  expect(handle.ageSeconds).toBeLessThan(10);
  expect(handle.isGone()).toBe(false);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(handle.isGone()).toBe(true);
  expect(openProcess(child.pid ?? 0)).toBe('gone');
  handle.close();
});

test('a stopped process is not gone', async () => {
  const child = spawn('sleep', ['60']);
  const handle = openLiving(child.pid);
  child.kill('SIGSTOP');
  expect(handle.isGone()).toBe(false);
  child.kill('SIGKILL');
  await once(child, 'exit');
});

test('a zombie, which nobody has waited for, is gone', async () => {
  // The shell execs into a sleep that never waits for the child it left behind.
  const parent = spawn('sh', ['-c', 'sleep 0.2 & echo $!; exec sleep 60']);
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(line.toString());
  const handle = openLiving(pid);
  expect(handle.isGone()).toBe(false);
  await until(() => handle.isGone() === true);
  parent.kill('SIGKILL');
  await once(parent, 'exit');
});

test('a process whose first thread has ended is not gone until its last one has', async () => {
  const main =
    'import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); ctypes.CDLL(None).pthread_exit(None)';
  const child = spawn('python3', ['-c', main]);
  onTestFinished(() => void child.kill('SIGKILL'));
  const handle = openLiving(child.pid);
  await until(() => readFileSync(`/proc/${child.pid}/stat`, 'utf8').includes(') Z '));
  expect(handle.isGone()).toBe(false);
  openLiving(child.pid).close();
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(handle.isGone()).toBe(true);
  handle.close();
});

test('no process, no handle; a boot has an id', () => {
  expect(openProcess(2 ** 22)).toBe('gone');
  expect(readBootId()).toMatch(/^[0-9a-f-]{36}$/);
});

// Making a pid namespace takes root.
test.skipIf(process.getuid?.() !== 0)('a pid that a process in a namespace of its own carries too is ambiguous', async () => {
  expect(isPidAmbiguous(process.pid)).toBe(false);
  const inner = spawn('unshare', ['--pid', '--fork', '--kill-child', 'sleep', '60']);
  // The namespace's first process has pid 1 inside, like ours outside.
  await until(() => isPidAmbiguous(1) === true);
  inner.kill('SIGKILL');
  await once(inner, 'exit');
});

const isRoot = process.getuid?.() === 0;
const BLIND = fileURLToPath(new URL('../../test/support/blind-main.ts', import.meta.url));

/** What a process that is hindered so says of one that lives, and of one that does not exist. */
async function askBlinded(command: string, ...args: string[]): Promise<unknown> {
  const living = spawn('sleep', ['60']);
  onTestFinished(() => void living.kill('SIGKILL'));
  const blinded = spawn(command, [...args, process.execPath, BLIND, String(living.pid)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(blinded.stdout, 'data')) as [Buffer];
  return JSON.parse(line.toString());
}

const BLINDED = { living: 'unknown', none: 'unknown', ambiguous: 'unknown' };
/** The group counts, too: hidepid hides nothing from the group 0. */
const AS_NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'] as const;

test('without a descriptor left, neither a process nor its absence can be seen', async () => {
  expect(await askBlinded('sh', '-c', 'ulimit -n 100; WITHOUT_DESCRIPTORS=1 exec "$@"', 'sh')).toEqual(BLINDED);
});

// Mounting and becoming another user take root.
test.skipIf(!isRoot).each([1, 2])(
  "where /proc hides other users' processes (hidepid=%i), what cannot be seen is not gone",
  async (hidepid) => {
    const mounted = `mount -t proc -o hidepid=${hidepid} proc /proc && exec "$@"`;
    expect(await askBlinded('unshare', '--mount', 'sh', '-c', mounted, 'sh', ...AS_NOBODY)).toEqual(BLINDED);
  },
);

test.skipIf(!isRoot)('another user sees them where /proc hides nothing', async () => {
  expect(await askBlinded(...AS_NOBODY)).toEqual({ living: 'seen', none: 'gone', ambiguous: false });
});

test.each([
  ['22 27 0:21 / /proc rw,relatime - proc proc rw', false],
  ['22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=2', true],
  ['22 27 0:21 / /proc rw,relatime - proc proc rw,gid=4,hidepid=invisible', true],
  ['22 27 0:21 / /proc rw - proc proc rw,hidepid=2\n23 27 0:22 / /proc rw - proc proc rw,hidepid=off', false],
  ['22 27 0:21 / /proc rw - proc proc rw\n23 27 0:22 / /proc rw - proc proc rw,hidepid=ptraceable', true],
  ['23 27 0:22 / /mnt/proc rw - proc proc rw,hidepid=2', false],
])('%s hides processes: %j', (mounts, hides) => {
  expect(hidesProcesses(mounts)).toBe(hides);
});
