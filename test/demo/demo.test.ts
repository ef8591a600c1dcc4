import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { waitFor } from '../support/wait.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

function startDemo(...args: string[]) {
  const child = spawn(process.execPath, [MAIN, 'demo', ...args], { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  onTestFinished(() => void child.kill('SIGKILL'));
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout });
  reader.on('line', (line) => lines.push(line));
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { child, lines, reader, exited };
}

function readCommand(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test('demo --once: every job is done exactly once, and every scene ends as promised', { timeout: 150_000 }, async () => {
  const { lines, exited } = startDemo('--once', '--json');
  const code = await exited;
  const { ok, scenes, balance } = JSON.parse(lines.join('\n'));
  expect({ code, ok, balance }).toMatchObject({ code: 0, ok: true, balance: { jobs: 81, completed: 81, doubled: 0, withoutEffect: 0 } });
  expect(scenes.map(({ scene, kept }: { scene: string; kept: boolean }) => `${scene} ${kept}`)).toEqual([
    'killed true',
    'crashed true',
    'stopped true',
    'frozen true',
    'killed true',
  ]);
});

test('Ctrl-C while a worker starts is no failure', async () => {
  const { child, lines, exited } = startDemo();
  const pid = child.pid ?? 0;
  await waitFor('the first worker to be started', () => {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
    return children.some((each) => readCommand(each).includes('demo/worker'));
  });
  // To its whole group, as a terminal does.
  process.kill(-pid, 'SIGINT');
  expect(await exited).toBe(0);
  expect(lines.at(-1)).toContain('interrupted');
  expect(lines.join()).not.toContain('an unmodified pg-boss worker');
});

test('Ctrl-C stops everything and leaves nothing running', async () => {
  const { child, lines, reader, exited } = startDemo();
  await new Promise<void>((resolve) => {
    reader.on('line', (line) => {
      if (line.includes('kill -9')) resolve();
    });
  });
  const pids = lines.flatMap((line) => /pid (\d+)/.exec(line)?.[1] ?? []).map(Number);
  expect(pids.length).toBeGreaterThanOrEqual(3);
  child.kill('SIGINT');
  expect(await exited).toBe(0);
  expect(pids.filter(isAlive)).toEqual([]);
});
