import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { createUnitJournal, type JournalReader } from './unit-journal.ts';

const LIFE = 'a'.repeat(32);
const FOREVER = new AbortController().signal;

/** A reader whose `journalctl` runs that script and notes its arguments. */
function journalOf(script: string, manager: 'system' | 'user' = 'system') {
  const directory = mkdtempSync(join(tmpdir(), 'reclaimd-journal-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const command = join(directory, 'journalctl');
  writeFileSync(command, `#!/bin/sh\nprintf '%s\\n' "$@" > ${directory}/arguments\n${script}\n`);
  chmodSync(command, 0o755);
  return {
    ...createUnitJournal({ manager, command }),
    asked: () => readFileSync(join(directory, 'arguments'), 'utf8').trim().split('\n'),
  };
}

/** Entries about LIFE, where they do not say otherwise. */
const showing = (entries: readonly object[], manager: 'system' | 'user' = 'system') => {
  const about = { [manager === 'system' ? 'INVOCATION_ID' : 'USER_INVOCATION_ID']: LIFE };
  return journalOf(`cat <<'END'\n${entries.map((entry) => JSON.stringify({ ...about, ...entry })).join('\n')}\nEND`, manager);
};

const explainEnd = async (journal: JournalReader, invocationId = LIFE) =>
  (await journal.explainEnds([{ unit: 'a.service', invocationId }], FOREVER))[0];

// As systemd 252 wrote them.
const started = (job: number) => ({
  MESSAGE_ID: '39f53479d3a045ac8e11786248231fbf',
  JOB_TYPE: 'start',
  JOB_ID: String(job),
  JOB_RESULT: 'done',
});
const stopping = (job: number) => ({ MESSAGE_ID: 'de5b426a63be47a7b6ac3eaac82e2f6f', JOB_TYPE: 'stop', JOB_ID: String(job) });
const stopped = (job: number, type: 'stop' | 'restart') => ({
  MESSAGE_ID: '9d1aaa27d60140bd96365438aad20286',
  JOB_TYPE: type,
  JOB_ID: String(job),
});
const succeeded = { MESSAGE_ID: '7ad2d189f7e94e70a38c781354912448' };
const failed = (result: string) => ({ MESSAGE_ID: 'd9b373ed55a64feb8242e02dbe79a49c', UNIT_RESULT: result });
const restartScheduled = { MESSAGE_ID: '5eb03494b6584870a536b337290809b3' };
const startFailed = (job: number, result: string) => ({
  MESSAGE_ID: 'be02cf6855d2428ba40df7e9d022f03d',
  JOB_TYPE: 'start',
  JOB_ID: String(job),
  JOB_RESULT: result,
});
const LIMIT = [failed('start-limit-hit'), startFailed(132, 'failed')];
const RESTARTED = [started(57), stopping(132), succeeded, stopped(132, 'restart')];

test.each<[string, object[], object]>([
  ['it crashed', [started(1), failed('exit-code')], { stopRequested: false, startLimitHit: false }],
  ['a person stopped it', [started(1), stopping(2), succeeded, stopped(2, 'stop')], { stopRequested: true, startLimitHit: false }],
  [
    'a person stopped it, and it ended badly',
    [started(1), stopping(2), failed('exit-code')],
    { stopRequested: true, startLimitHit: false },
  ],
  ['a restart stopped it', RESTARTED, { stopRequested: false, startLimitHit: false }],
  [
    'restarts that were asked for met the limit',
    [...RESTARTED, ...LIMIT],
    { stopRequested: false, startLimitHit: true, startFailed: 'failed' },
  ],
  [
    'a person stopped it, and a later start was refused',
    [started(1), stopping(2), succeeded, stopped(2, 'stop'), ...LIMIT],
    { stopRequested: false, startLimitHit: true, startFailed: 'failed' },
  ],
  [
    'crashes met the limit',
    [started(1), failed('exit-code'), restartScheduled, stopped(9, 'restart'), failed('exit-code'), startFailed(9, 'failed')],
    { stopRequested: false, startLimitHit: true, startFailed: 'failed' },
  ],
  [
    'a person stopped it between two tries',
    [started(1), failed('exit-code'), restartScheduled, stopped(9, 'stop')],
    { stopRequested: true, startLimitHit: false },
  ],
  ['what it requires failed', [startFailed(177, 'dependency')], { stopRequested: false, startLimitHit: false, startFailed: 'dependency' }],
  ['the manager logs no starts', [failed('exit-code')], { stopRequested: undefined, startLimitHit: false }],
])('the end of a life: %s', async (_, entries, end) => {
  expect(await explainEnd(showing(entries))).toEqual(end);
});

test('a journal that holds nothing of that life tells nothing', async () => {
  expect(await explainEnd(showing([]))).toEqual({ stopRequested: undefined, startLimitHit: undefined });
});

test('the ends of many lives are read at once, each from what is said of it', async () => {
  const lives = ['b', 'c', 'd'].map((digit) => ({ unit: `${digit}.service`, invocationId: digit.repeat(32) }));
  const [first, second] = lives.map(({ invocationId }) => ({ INVOCATION_ID: invocationId }));
  const journal = showing([
    { ...started(1), ...first },
    { ...started(2), ...second },
    { ...stopping(3), ...first },
    { ...failed('signal'), ...second },
    { ...failed('exit-code'), ...first },
  ]);
  expect(await journal.explainEnds(lives, FOREVER)).toEqual([
    { stopRequested: true, startLimitHit: false },
    { stopRequested: false, startLimitHit: false },
    { stopRequested: undefined, startLimitHit: undefined },
  ]);
  expect(journal.asked().slice(-4)).toEqual(['_PID=1', ...lives.map(({ invocationId }) => `INVOCATION_ID=${invocationId}`)]);
});

test('an end that is not written yet is waited for', async () => {
  const say = (entry: object) => JSON.stringify({ INVOCATION_ID: LIFE, ...entry });
  const journal = journalOf(`echo '${say(started(1))}'; [ -e "$0.asked" ] && echo '${say(failed('signal'))}'; touch "$0.asked"`);
  expect(await explainEnd(journal)).toEqual({ stopRequested: false, startLimitHit: false });
});

test('of system units only process 1 is believed, and no name that a process gives itself', async () => {
  const journal = showing([]);
  await explainEnd(journal);
  expect(journal.asked().slice(-2)).toEqual(['_PID=1', `INVOCATION_ID=${LIFE}`]);
  await explainEnd(journal, '');
  expect(journal.asked().slice(-3)).toEqual(['--boot', '_PID=1', 'UNIT=a.service']);
});

test("of user units only that user's own manager is believed", async () => {
  const manager = { _SYSTEMD_CGROUP: '/user.slice/user-1000.slice/user@1000.service/init.scope', _COMM: 'systemd' };
  const forger = { _SYSTEMD_CGROUP: '/user.slice/user-1000.slice/user@1000.service/app.slice/app.service', _COMM: 'systemd' };
  const entries = [
    { ...started(1), ...manager },
    { ...stopping(2), ...forger },
    { ...failed('signal'), ...manager },
  ];
  const journal = showing(entries, 'user');
  expect(await explainEnd(journal)).toEqual({ stopRequested: false, startLimitHit: false });
  expect(journal.asked().slice(-2)).toEqual([`_UID=${process.getuid?.()}`, `USER_INVOCATION_ID=${LIFE}`]);
});

test('last words: lines that tell, whatever their form; what was cut off, left out or empty is none', async () => {
  const lines = [
    { MESSAGE: 'listening', PRIORITY: '6' },
    { MESSAGE: [...Buffer.from('Error: caf\u00e9')], PRIORITY: '6' },
    { MESSAGE: null, PRIORITY: '3' },
    { MESSAGE: '', PRIORITY: '3' },
    { MESSAGE: 'gave up', PRIORITY: '3' },
  ];
  const text = lines.map((line) => JSON.stringify(line)).join('\n');
  const journal = journalOf(`cat <<'END'\n${text}\nEND\nprintf '{"MESSAGE":"Error: cut o'`);
  expect(await journal.readLastLines(LIFE, 3, FOREVER)).toEqual(['Error: café', 'gave up']);
  expect(await journal.readLastLines(LIFE, 1, FOREVER)).toEqual(['gave up']);
  expect(await showing([{ MESSAGE: 'one' }, { MESSAGE: 'two' }]).readLastLines(LIFE, 3, FOREVER)).toEqual(['one', 'two']);
});

test('a life without an id that systemd gives is not asked about', async () => {
  expect(await journalOf('exit 1').readLastLines('x; reboot', 3, FOREVER)).toEqual([]);
});

test('a journal that never ends its answer is killed with the signal; one without measure is cut', async () => {
  const startedAt = performance.now();
  await expect(journalOf('exec sleep 60').readLastLines(LIFE, 3, AbortSignal.timeout(200))).rejects.toThrow();
  const endless = `while :; do echo '{"MESSAGE":"Error: ${'x'.repeat(1000)}"}'; done`;
  expect(await journalOf(endless).readLastLines(LIFE, 3, FOREVER)).toHaveLength(3);
  expect(performance.now() - startedAt).toBeLessThan(20_000);
});

test('units without a life that systemd remembers are asked about together, by name', async () => {
  const names = ['a.service', 'b.service', 'c.service'];
  const journal = journalOf(
    `cat <<'END'\n${[
      { UNIT: 'a.service', ...started(1) },
      { UNIT: 'b.service', ...started(2) },
      { UNIT: 'a.service', ...failed('signal') },
      { UNIT: 'b.service', ...stopping(3) },
    ]
      .map((entry) => JSON.stringify(entry))
      .join('\n')}\nEND`,
  );
  expect(
    await journal.explainEnds(
      names.map((unit) => ({ unit, invocationId: '' })),
      FOREVER,
    ),
  ).toEqual([
    { stopRequested: false, startLimitHit: false },
    { stopRequested: true, startLimitHit: false },
    { stopRequested: undefined, startLimitHit: undefined },
  ]);
  expect(journal.asked().slice(-4)).toEqual(['_PID=1', ...names.map((unit) => `UNIT=${unit}`)]);
});

test('of the lives of a name the last one counts; a start that was skipped is none', async () => {
  const [first, second] = [{ INVOCATION_ID: '1'.repeat(32) }, { INVOCATION_ID: '2'.repeat(32) }];
  const stopped = [started(1), stopping(2), succeeded].map((entry) => ({ ...entry, ...first }));
  const crashed = [started(3), failed('signal')].map((entry) => ({ ...entry, ...second }));
  const endOf = (entries: object[]) => explainEnd(showing(entries.map((entry) => ({ UNIT: 'a.service', ...entry }))), '');
  const crash = { stopRequested: false, startLimitHit: false, invocationId: second.INVOCATION_ID };
  expect(await endOf([...stopped, ...crashed])).toEqual(crash);
  expect(await endOf([...crashed, ...stopped])).toEqual({ stopRequested: true, startLimitHit: false, invocationId: first.INVOCATION_ID });
  const skipped = { ...started(4), INVOCATION_ID: '' };
  expect(await endOf([...stopped, ...crashed, { ...started(4), ...second }, skipped])).toEqual(crash);
  const unwanted = [started(5), { MESSAGE_ID: '0e4284a0caca4bfc81c0bb6786972673', UNIT_RESULT: 'exec-condition' }];
  const third = { INVOCATION_ID: '3'.repeat(32) };
  expect(await endOf([...stopped, ...crashed, ...unwanted.map((entry) => ({ ...entry, ...third }))])).toEqual(crash);
});

test('a hundred last words wanted at once are a few processes at a time', async () => {
  // Each says how many there were beside it, itself among them.
  const journal = journalOf(
    'touch "$0.running.$$"; sleep 0.05; set -- "$0".running.*; echo "{\\"MESSAGE\\":\\"$#\\"}"; rm "$0.running.$$"',
  );
  const counts = await Promise.all(Array.from({ length: 40 }, () => journal.readLastLines(LIFE, 1, FOREVER)));
  expect(counts).toHaveLength(40);
  for (const [count] of counts) expect(Number(count)).toBeLessThanOrEqual(4);
  expect(Math.max(...counts.map(([count]) => Number(count)))).toBeGreaterThan(1);
});

test('without file descriptors left there are no last words and no ends, and the program goes on', async () => {
  const script = `
    const { openSync } = await import('node:fs');
    const { createUnitJournal } = await import(${JSON.stringify(fileURLToPath(new URL('./unit-journal.ts', import.meta.url)))});
    const journal = createUnitJournal({ manager: 'system', command: '/bin/true' });
    try { for (;;) openSync('/dev/null'); } catch (error) { console.log(error.code); }
    const ends = await journal.explainEnds([{ unit: 'a.service', invocationId: '${LIFE}' }], AbortSignal.timeout(5_000));
    console.log(JSON.stringify(ends));
    await journal.readLastLines('${LIFE}', 3, AbortSignal.timeout(5_000)).catch((error) => console.log('no words:', error.code));
  `;
  const shell = ['-c', 'ulimit -n 64 && exec "$0" --input-type=module -e "$1"', process.execPath, script];
  const { stdout } = await promisify(execFile)('sh', shell);
  expect(stdout.trim().split('\n')).toEqual(['EMFILE', '[{}]', 'no words: EMFILE']);
});
