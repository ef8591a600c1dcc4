import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { createLimit } from '../runtime/limit.ts';
import { slicesOf } from '../runtime/slices.ts';

/** See actions/unit-journal.ts. */
export interface JournalReader {
  readLastLines(invocationId: string, count: number, signal: AbortSignal): Promise<string[]>;
  explainEnds(lives: readonly UnitLife[], signal: AbortSignal): Promise<LifeEnd[]>;
}

export interface JournalSettings {
  /** Whose units they are: `user`, those of the manager of the user that we run as. */
  manager: 'system' | 'user';
  command?: string;
}

interface UnitLife {
  unit: string;
  invocationId: string;
}

interface LifeEnd {
  stopRequested: boolean | undefined;
  startLimitHit: boolean | undefined;
  startFailed?: string | undefined;
  invocationId?: string | undefined;
}

type Entry = Record<string, unknown>;

const INVOCATION = /^[0-9a-f]{32}$/;
/** Lines that say what went wrong, whatever priority their program gave them: most give none. */
const TELLING = /\b(error|exception|fatal|panic|abort(ed)?|out of memory)\b|[a-z]Error\b/i;
const ERROR_PRIORITY = 3;
/** Of a program's output so many lines are searched for telling ones. */
const SEARCHED = 60;
/** A life has a handful of messages of the manager; reloads add to them. */
const MANAGER_MESSAGES = 200;
const MOST_BYTES = 1 << 20;
const RETRY_MS = 50;
/** A host's workers may die by the hundred: their last words are read in turns. */
const READS_AT_ONCE = 4;
/** Of a name there may be many lives since boot: fewer of them are asked for at once. */
const NAMES_AT_ONCE = 10;
const UNTOLD: LifeEnd = { stopRequested: undefined, startLimitHit: undefined };

/** Of systemd's catalogue of messages (sd-messages.h). */
const MESSAGE = {
  starting: '7d4958e842da4a758f6c1cdc7b36dcc5',
  started: '39f53479d3a045ac8e11786248231fbf',
  stopping: 'de5b426a63be47a7b6ac3eaac82e2f6f',
  stopped: '9d1aaa27d60140bd96365438aad20286',
  succeeded: '7ad2d189f7e94e70a38c781354912448',
  failed: 'd9b373ed55a64feb8242e02dbe79a49c',
  restartScheduled: '5eb03494b6584870a536b337290809b3',
  startFailed: 'be02cf6855d2428ba40df7e9d022f03d',
  skipped: '0e4284a0caca4bfc81c0bb6786972673',
};

/** The journal through `journalctl`: no shell, no secrets in its environment, killed with the signal. */
export function createUnitJournal({ manager, command = 'journalctl' }: JournalSettings): JournalReader {
  const limited = createLimit(READS_AT_ONCE);

  const read = (matches: readonly string[], lines: number, mostBytes: number, signal: AbortSignal) =>
    limited(() => readNow(matches, lines, mostBytes, signal));

  async function readNow(matches: readonly string[], lines: number, mostBytes: number, signal: AbortSignal): Promise<Entry[]> {
    signal.throwIfAborted();
    const args = ['--output=json', '--no-pager', '--quiet', `--lines=${lines}`, ...matches];
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { PATH: '/usr/bin:/bin' },
      signal,
      killSignal: 'SIGKILL',
    });
    const ended = new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', () => resolve());
    });
    // Without descriptors left there is neither a process nor a pipe, and the error comes a moment later.
    const { stdout } = child as { stdout: Readable | null };
    const chunks: Buffer[] = [];
    let bytes = 0;
    stdout?.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > mostBytes) child.kill('SIGKILL');
      else chunks.push(chunk);
    });
    await ended;
    return Buffer.concat(chunks).toString('utf8').split('\n').flatMap(parseEntry);
  }

  /** What that field of the manager's messages names, in one read for all of them; what nothing is written of stays untold. */
  async function explain(field: 'INVOCATION_ID' | 'UNIT', values: readonly string[], signal: AbortSignal): Promise<Map<string, LifeEnd>> {
    const ends = new Map<string, LifeEnd>();
    let left = values;
    while (left.length > 0) {
      const lines = MANAGER_MESSAGES * left.length;
      const entries = await read(matchesOf(manager, field, left), lines, MOST_BYTES * left.length, signal).catch(() => undefined);
      if (!entries) break;
      // One of them may have filled it all with reloads: each by itself, then.
      if (entries.length >= lines && left.length > 1) {
        for (const value of left) for (const [key, end] of await explain(field, [value], signal)) ends.set(key, end);
        break;
      }
      const about = Map.groupBy(
        entries.filter((entry) => manager === 'system' || isOfUserManager(entry)),
        (entry) => entry[fieldOf(manager, field)],
      );
      for (const [value, said] of about) {
        const last = lastLifeOf(manager, said);
        const end = endOf(last);
        if (end) ends.set(String(value), field === 'UNIT' ? { ...end, invocationId: invocationOf(manager, last) } : end);
      }
      // The end itself is not written yet: what came before it may be missing too.
      left = left.filter((value) => about.has(value) && !ends.has(value));
      if (signal.aborted) break;
      if (left.length > 0) await delay(RETRY_MS);
    }
    return ends;
  }

  return {
    readLastLines: async (invocationId, count, signal) => {
      if (!INVOCATION.test(invocationId)) return [];
      const entries = await read([`_SYSTEMD_INVOCATION_ID=${invocationId}`], SEARCHED, MOST_BYTES, signal);
      const lines = entries
        .map((entry) => ({ text: textOf(entry['MESSAGE']), priority: Number(entry['PRIORITY'] ?? 6) }))
        .filter(({ text }) => text !== '');
      const telling = lines.filter(({ text, priority }) => priority <= ERROR_PRIORITY || TELLING.test(text));
      return (telling.length > 0 ? telling : lines).slice(-count).map(({ text }) => text);
    },
    explainEnds: async (lives, signal) => {
      const ids = lives.map(({ invocationId }) => invocationId).filter((id) => INVOCATION.test(id));
      const names = lives.filter(({ invocationId }) => !INVOCATION.test(invocationId)).map(({ unit }) => unit);
      const someNames = [...slicesOf(names, NAMES_AT_ONCE)];
      const found = await Promise.all([explain('INVOCATION_ID', ids, signal), ...someNames.map((some) => explain('UNIT', some, signal))]);
      const ends = new Map(found.flatMap((some) => [...some]));
      return lives.map(({ unit, invocationId }) => ends.get(INVOCATION.test(invocationId) ? invocationId : unit) ?? UNTOLD);
    },
  };
}

/**
 * What the manager says of a unit. Any local user may write to the journal, whatever fields they like: only those that begin with
 * an underscore are journald's own, and of those a process chooses its name (`_COMM`) by itself.
 */
function matchesOf(manager: JournalSettings['manager'], field: 'INVOCATION_ID' | 'UNIT', values: readonly string[]): string[] {
  const from = manager === 'system' ? '_PID=1' : `_UID=${process.getuid?.() ?? 0}`;
  const about = values.map((value) => `${fieldOf(manager, field)}=${value}`);
  return field === 'UNIT' ? ['--boot', from, ...about] : [from, ...about];
}

const fieldOf = (manager: JournalSettings['manager'], field: string) => (manager === 'system' ? field : `USER_${field}`);

/** Among the processes of that user the manager is the one in the scope that it makes for itself. */
const isOfUserManager = (entry: Entry) => String(entry['_SYSTEMD_CGROUP']).endsWith('/init.scope');

/**
 * From its start on: asked for by name, there may be others before it. A start that was skipped is told as one, in the name of the life before,
 * or of none where systemd has unloaded that; what its ExecCondition= kept from running did not live.
 */
function lastLifeOf(manager: JournalSettings['manager'], entries: readonly Entry[]): readonly Entry[] {
  const field = fieldOf(manager, 'INVOCATION_ID');
  const unlived = new Set(entries.filter((entry) => isAbout(entry, 'skipped')).map((entry) => entry[field])).add('');
  const starts = entries.filter((entry) => isAbout(entry, 'starting', 'started') && !unlived.has(entry[field]));
  const last = starts.at(-1);
  const first = starts.find((entry) => entry[field] === last?.[field]);
  return first === undefined ? entries : entries.slice(entries.indexOf(first));
}

/** Of a life from its start on. */
function invocationOf(manager: JournalSettings['manager'], [first]: readonly Entry[]): string | undefined {
  const id = first?.[fieldOf(manager, 'INVOCATION_ID')];
  return typeof id === 'string' && first && isAbout(first, 'starting', 'started') ? id : undefined;
}

/**
 * Undefined where the messages do not reach to the end of that life. The last word counts: a start that was refused keeps the id of
 * the life before, and stands after whatever stopped that. What a restart stops it wants up again.
 */
function endOf(entries: readonly Entry[]): LifeEnd | undefined {
  const has = (...messages: (keyof typeof MESSAGE)[]) => entries.some((entry) => isAbout(entry, ...messages));
  const restarts = new Set(entries.filter((entry) => entry['JOB_TYPE'] === 'restart').map((entry) => entry['JOB_ID']));
  const isStop = (entry: Entry) =>
    entry['JOB_TYPE'] === 'stop' && isAbout(entry, 'stopping', 'stopped') && !(entry['JOB_ID'] && restarts.has(entry['JOB_ID']));
  const failedAt = entries.findLastIndex((entry) => entry['JOB_TYPE'] === 'start' && isAbout(entry, 'startFailed'));
  if (entries.findLastIndex(isStop) > failedAt) return { stopRequested: true, startLimitHit: false };
  const startLimitHit = has('restartScheduled') || entries.some((entry) => entry['UNIT_RESULT'] === 'start-limit-hit');
  if (failedAt !== -1) return { stopRequested: false, startLimitHit, startFailed: String(entries[failedAt]?.['JOB_RESULT']) };
  if (!has('succeeded', 'failed')) return undefined;
  // That nobody asked is believed only where the manager logs such messages at all.
  return { stopRequested: has('starting', 'started') ? false : undefined, startLimitHit };
}

const isAbout = (entry: Entry, ...messages: (keyof typeof MESSAGE)[]) =>
  messages.some((message) => entry['MESSAGE_ID'] === MESSAGE[message]);

function parseEntry(line: string): Entry[] {
  try {
    return line === '' ? [] : [JSON.parse(line) as Entry];
  } catch {
    // Cut off where the reading was.
    return [];
  }
}

/** Text, or bytes where a program wrote something else; a field too long to be shown is null. */
function textOf(value: unknown): string {
  if (typeof value === 'string') return value.trim();
  return Array.isArray(value)
    ? Buffer.from(value as number[])
        .toString('utf8')
        .trim()
    : '';
}
