import { expect, onTestFinished, test } from 'vitest';
import type { UnitChange } from '../../src/actions/unit-manager.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { createUnitManager } from '../../src/systemd/unit-manager.ts';
import { silentLog } from '../support/database.ts';
import { type Asked, createScriptedBus, reply, signal, type Written } from '../support/scripted-bus.ts';
import { waitFor } from '../support/wait.ts';

const BUS = 'org.freedesktop.DBus';
const [SYSTEMD, STRANGER] = [':1.1', ':1.66'];
const MANAGER = { path: '/org/freedesktop/systemd1', interface: 'org.freedesktop.systemd1.Manager' };
const APP = '/org/freedesktop/systemd1/unit/app_2eservice';
const LIMITS = { callMs: 500, jobMs: 10_000, backoffMs: 50 };

function manage(socket: string, limits = LIMITS) {
  const manager = createUnitManager(socket, { clock: systemClock, log: silentLog }, limits);
  onTestFinished(() => manager.close());
  return manager;
}

/** One unit, whose life is `lives.app`; `override` answers first. */
function systemdWith(override: (asked: Asked) => Written | 'nothing' | undefined = () => undefined) {
  const lives = { app: 1 };
  const answer = (asked: Asked): Written | undefined => {
    const special = override(asked);
    if (special) return special === 'nothing' ? undefined : special;
    switch (asked.member) {
      case 'Hello':
        return { sender: BUS, signature: 's', body: [':1.9'] };
      case 'AddMatch':
        return { sender: BUS };
      case 'GetNameOwner':
        return { sender: BUS, signature: 's', body: [SYSTEMD] };
      case 'ListUnitsByPatterns': {
        const row = ['app.service', 'App', 'loaded', 'active', 'running', '', APP, 0, '', '/'];
        return { sender: SYSTEMD, signature: 'a(ssssssouso)', body: [[row]] };
      }
      case 'LoadUnit':
      case 'GetUnit':
        return { sender: SYSTEMD, signature: 'o', body: [APP] };
      case 'GetAll':
        return { sender: SYSTEMD, signature: 'a{sv}', body: [propertiesOf(lives.app)] };
      case 'StartUnit':
        return { sender: SYSTEMD, signature: 'o', body: ['/org/freedesktop/systemd1/job/7'] };
      default:
        return { sender: SYSTEMD };
    }
  };
  return { lives, answer };
}

const propertiesOf = (life: number) => ({
  Id: ['s', 'app.service'],
  LoadState: ['s', 'loaded'],
  ActiveState: ['s', 'active'],
  SubState: ['s', 'running'],
  InvocationID: ['ay', Buffer.alloc(16, life)],
  NRestarts: ['u', life],
});

const jobRemoved = (sender: string, result: string) =>
  signal({
    sender,
    ...MANAGER,
    member: 'JobRemoved',
    signature: 'uoss',
    body: [7, '/org/freedesktop/systemd1/job/7', 'app.service', result],
  });
const changed = (sender: string) =>
  signal({
    sender,
    path: APP,
    interface: 'org.freedesktop.DBus.Properties',
    member: 'PropertiesChanged',
    signature: 'sa{sv}as',
    body: ['org.freedesktop.systemd1.Service', {}, []],
  });

test('how a job ended is for systemd alone to say: another who says it to us is not heard', async () => {
  const bus = await createScriptedBus(systemdWith().answer);
  const units = manage(bus.socket);
  const job = units.start('app.service');
  await waitFor('the job', () => bus.asked.some(({ member }) => member === 'StartUnit'));
  bus.send(jobRemoved(STRANGER, 'done'), reply(99, { sender: STRANGER }), jobRemoved(SYSTEMD, 'failed'));
  expect(await job).toBe('failed');
});

test('an answer that somebody else gives is none, and what he sends is not even read', async () => {
  const silentOnRead = systemdWith(({ member }) => (member === 'LoadUnit' ? 'nothing' : undefined));
  const bus = await createScriptedBus(silentOnRead.answer);
  const units = manage(bus.socket);
  await units.list(['app.service']);
  const reading = units.read('app.service');
  await waitFor('the question', () => bus.asked.some(({ member }) => member === 'LoadUnit'));
  const unreadable = { signature: 'm', body: [] };
  bus.send(
    signal({ sender: STRANGER, ...MANAGER, member: 'JobRemoved', ...unreadable }),
    reply(bus.asked.length, { sender: STRANGER, ...unreadable }),
    reply(bus.asked.length, { sender: STRANGER, signature: 'o', body: ['/of/a/stranger'] }),
  );
  await expect(reading).rejects.toThrow('not answered');
});

test('another process that gets the name of systemd is connected to anew, and watchers are told', async () => {
  const bus = await createScriptedBus(systemdWith().answer);
  const units = manage(bus.socket);
  const heard: UnitChange[] = [];
  await units.list(['app.service']);
  units.watch(
    () => true,
    (change) => heard.push(change),
  );
  const body = ['org.freedesktop.systemd1', SYSTEMD, ':1.2'];
  bus.send(signal({ sender: BUS, path: '/org/freedesktop/DBus', interface: BUS, member: 'NameOwnerChanged', signature: 'sss', body }));
  await waitFor('to be told', () => heard.some(({ kind }) => kind === 'reconnected'));
  expect(bus.asked.filter(({ member }) => member === 'GetNameOwner')).toHaveLength(2);
  await waitFor('the old connection to be gone', () => bus.clients() === 1);
});

test('a bus that falls silent after it was connected is left and tried again, until it answers', async () => {
  let silent = false;
  const bus = await createScriptedBus(systemdWith(() => (silent ? 'nothing' : undefined)).answer);
  const units = manage(bus.socket);
  await units.list(['app.service']);
  silent = true;
  await expect(units.list(['app.service'])).rejects.toThrow('not answered');
  await waitFor('it to be told', () => units.state === 'unavailable');
  await waitFor('another try', () => bus.asked.filter(({ member }) => member === 'Hello').length > 1);
  silent = false;
  await waitFor('it to be connected', () => units.state === 'connected');
  expect(await units.list(['app.service'])).toHaveLength(1);
});

test('one slow answer among others is waited for no longer, and nothing else is lost', async () => {
  const bus = await createScriptedBus(systemdWith(({ member }) => (member === 'GetUnitProcesses' ? 'nothing' : undefined)).answer);
  const units = manage(bus.socket);
  const job = units.start('app.service');
  const slow = units.listProcesses('app.service');
  slow.catch(() => undefined);
  await waitFor('the question', () => bus.asked.some(({ member }) => member === 'GetUnitProcesses'));
  await units.list(['app.service']);
  await expect(slow).rejects.toThrow('not answered');
  expect(units.state).toBe('connected');
  bus.send(jobRemoved(SYSTEMD, 'done'));
  expect(await job).toBe('done');
});

test('what changes while it is being looked at is not kept as it was before', async () => {
  let interrupt = true;
  const systemd = systemdWith(({ member }) => (member === 'GetAll' && interrupt ? 'nothing' : undefined));
  const bus = await createScriptedBus(systemd.answer);
  const units = manage(bus.socket);
  const listing = units.list(['app.service']);
  await waitFor('the look', () => bus.asked.some(({ member }) => member === 'GetAll'));
  interrupt = false;
  // The answer and the news that it is outdated, in one piece.
  bus.send(reply(bus.asked.length, { sender: SYSTEMD, signature: 'a{sv}', body: [propertiesOf(1)] }), changed(SYSTEMD));
  expect(await listing).toMatchObject([{ restarts: 1 }]);
  systemd.lives.app = 2;
  expect(await units.list(['app.service'])).toMatchObject([{ restarts: 2 }]);
  await units.list(['app.service']);
  expect(bus.asked.filter(({ member }) => member === 'GetAll')).toHaveLength(2);
});

test('a unit that changes again and again is read once at a time, and as it is in the end', async () => {
  let interrupt = false;
  const systemd = systemdWith(({ member }) => (member === 'GetAll' && interrupt ? 'nothing' : undefined));
  const bus = await createScriptedBus(systemd.answer);
  const units = manage(bus.socket);
  await units.list(['app.service']);
  const heard: UnitChange[] = [];
  units.watch(
    () => true,
    (change) => heard.push(change),
  );
  const reads = () => bus.asked.filter(({ member }) => member === 'GetAll').length;
  const before = reads();
  interrupt = true;
  bus.send(changed(SYSTEMD));
  await waitFor('the read', () => reads() === before + 1);
  const held = bus.asked.length;
  for (let change = 0; change < 5; change++) {
    bus.send(changed(SYSTEMD));
    // Answered after the change was heard.
    await units.resetFailed('app.service');
  }
  systemd.lives.app = 2;
  interrupt = false;
  bus.send(reply(held, { sender: SYSTEMD, signature: 'a{sv}', body: [propertiesOf(1)] }));
  await waitFor('the end of it', () => heard.some((change) => change.kind === 'changed' && change.status?.restarts === 2));
  expect(reads()).toBe(before + 2);
});

test('more calls than the bus lets us have unanswered wait for their turn', async () => {
  let silent = true;
  const systemd = systemdWith(({ member }) => (member === 'GetUnitProcesses' && silent ? 'nothing' : undefined));
  const bus = await createScriptedBus((asked) =>
    asked.member === 'GetUnitProcesses' && !silent ? { sender: SYSTEMD, signature: 'a(sus)', body: [[]] } : systemd.answer(asked),
  );
  const units = manage(bus.socket, { ...LIMITS, callMs: 20_000 });
  await units.list(['app.service']);
  const asked = () => bus.asked.filter(({ member }) => member === 'GetUnitProcesses').length;
  const calls = Promise.allSettled(Array.from({ length: 200 }, () => units.listProcesses('app.service')));
  await waitFor('the first', () => asked() === 64);
  const first = bus.asked.findIndex(({ member }) => member === 'GetUnitProcesses') + 1;
  silent = false;
  for (let serial = first; serial < first + 64; serial++) bus.send(reply(serial, { sender: SYSTEMD, signature: 'a(sus)', body: [[]] }));
  expect((await calls).filter(({ status }) => status === 'fulfilled')).toHaveLength(200);
  expect(asked()).toBe(200);
});

test('what is no D-Bus at all ends the connection, not the process', async () => {
  const bus = await createScriptedBus(systemdWith().answer);
  const units = manage(bus.socket);
  await units.list(['app.service']);
  bus.send(Buffer.alloc(64, 'x'));
  await waitFor('another connection', () => bus.asked.filter(({ member }) => member === 'Hello').length === 2);
  expect(await units.list(['app.service'])).toHaveLength(1);
});

test('connections on which we may not subscribe are not kept', async () => {
  const denied = { sender: SYSTEMD, error: 'org.freedesktop.DBus.Error.AccessDenied', signature: 's', body: ['not for you'] };
  const bus = await createScriptedBus(systemdWith(({ member }) => (member === 'Subscribe' ? denied : undefined)).answer);
  await expect(manage(bus.socket).list(['app.service'])).rejects.toThrow('not for you');
  await waitFor('several tries', () => bus.asked.filter(({ member }) => member === 'Hello').length > 3);
  expect(bus.clients()).toBeLessThanOrEqual(1);
});
