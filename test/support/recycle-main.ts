// Runs in a pid namespace of its own: makes a pid die and come back as another process, and says what the handle saw.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { openProcess, secondsSinceBoot } from '../../src/host/process.ts';

const first = spawn('sleep', ['60']);
const pid = first.pid ?? 0;
const open = (number: number) => {
  const handle = openProcess(number);
  if (typeof handle === 'string') throw new Error(`process ${number} is ${handle}`);
  return handle;
};
const handle = open(pid);
const before = handle.isGone();
first.kill('SIGKILL');
await once(first, 'exit');
// Start times count in hundredths of a second; a host that comes round to the same pid takes longer.
const soon = secondsSinceBoot() + 0.02;
while (secondsSinceBoot() < soon) await new Promise((resolve) => setImmediate(resolve));
writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1));
const second = spawn('sleep', ['60']);
const successor = open(pid);
const report = {
  recycled: second.pid === pid,
  before,
  after: handle.isGone(),
  successor: successor.isGone(),
  told: handle.startTicks !== successor.startTicks,
};
second.kill('SIGKILL');
process.stdout.write(JSON.stringify(report));
