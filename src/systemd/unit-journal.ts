import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';

/** See actions/unit-journal.ts. */
export interface JournalReader {
  readLastLines(invocationId: string, count: number, signal: AbortSignal): Promise<string[]>;
  explainEnd(
    unit: string,
    invocationId: string,
    signal: AbortSignal,
  ): Promise<{ stopRequested: boolean | undefined; startLimitHit: boolean | undefined }>;
}

type Entry = Record<string, unknown>;

const INVOCATION = /^[0-9a-f]{32}$/;
/** Lines that say what went wrong, whatever priority their program gave them: most give none. */
const TELLING = /\b(error|exception|fatal|panic|abort(ed)?|out of memory)\b|[a-z]Error\b/i;
const ERROR_PRIORITY = 3;
/** Of a program's output so many lines are searched for telling ones. */
const SEARCHED = '60';
/** A life has a handful of messages of the manager; reloads add to them. */
const MANAGER_MESSAGES = '200';
const MOST_BYTES = 1 << 20;
const RETRY_MS = 50;

/** Of systemd's catalogue of messages (sd-messages.h). */
const MESSAGE = {
  starting: '7d4958e842da4a758f6c1cdc7b36dcc5',
  started: '39f53479d3a045ac8e11786248231fbf',
  stopping: 'de5b426a63be47a7b6ac3eaac82e2f6f',
  stopped: '9d1aaa27d60140bd96365438aad20286',
  succeeded: '7ad2d189f7e94e70a38c781354912448',
  failed: 'd9b373ed55a64feb8242e02dbe79a49c',
  restartScheduled: '5eb03494b6584870a536b337290809b3',
};

/** The journal through `journalctl`: no shell, no secrets in its environment, killed with the signal. */
export function createUnitJournal(command = 'journalctl'): JournalReader {
  async function read(matches: readonly string[], lines: string, signal: AbortSignal): Promise<Entry[]> {
    const args = ['--output=json', '--no-pager', '--quiet', `--lines=${lines}`, ...matches];
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { PATH: '/usr/bin:/bin' },
      signal,
      killSignal: 'SIGKILL',
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MOST_BYTES) child.kill('SIGKILL');
      else chunks.push(chunk);
    });
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', () => resolve());
    });
    return Buffer.concat(chunks).toString('utf8').split('\n').flatMap(parseEntry);
  }

  return {
    readLastLines: async (invocationId, count, signal) => {
      if (!INVOCATION.test(invocationId)) return [];
      const entries = await read([`_SYSTEMD_INVOCATION_ID=${invocationId}`], SEARCHED, signal);
      const lines = entries
        .map((entry) => ({ text: textOf(entry['MESSAGE']), priority: Number(entry['PRIORITY'] ?? 6) }))
        .filter(({ text }) => text !== '');
      const telling = lines.filter(({ text, priority }) => priority <= ERROR_PRIORITY || TELLING.test(text));
      return (telling.length > 0 ? telling : lines).slice(-count).map(({ text }) => text);
    },
    explainEnd: async (unit, invocationId, signal) => {
      // What a manager says of a unit; its other fields could be written by anybody, the underscored ones only by journald.
      const matches = INVOCATION.test(invocationId)
        ? ['_PID=1', `INVOCATION_ID=${invocationId}`, '+', '_COMM=systemd', `USER_INVOCATION_ID=${invocationId}`]
        : ['--boot', '_PID=1', `UNIT=${unit}`];
      for (;;) {
        const entries = await read(matches, MANAGER_MESSAGES, signal);
        const end = explain(lastLifeOf(entries));
        if (end) return end;
        // The end itself is not written yet: what came before it may be missing too.
        if (entries.length === 0 || signal.aborted) return { stopRequested: undefined, startLimitHit: undefined };
        await delay(RETRY_MS);
      }
    },
  };
}

/** From its last start on: asked for by name, there may be others before it. */
function lastLifeOf(entries: readonly Entry[]): readonly Entry[] {
  const start = entries.findLastIndex((entry) => [MESSAGE.starting, MESSAGE.started].includes(String(entry['MESSAGE_ID'])));
  return start === -1 ? entries : entries.slice(start);
}

/** Undefined where the messages do not reach to the end of that life. */
function explain(entries: readonly Entry[]): { stopRequested: boolean | undefined; startLimitHit: boolean | undefined } | undefined {
  const has = (...messages: string[]) => entries.some((entry) => messages.includes(String(entry['MESSAGE_ID'])));
  const startLimitHit = has(MESSAGE.restartScheduled);
  const stopRequested = entries.some(
    (entry) => entry['JOB_TYPE'] === 'stop' && [MESSAGE.stopping, MESSAGE.stopped].includes(String(entry['MESSAGE_ID'])),
  );
  if (stopRequested) return { stopRequested, startLimitHit: false };
  if (!has(MESSAGE.succeeded, MESSAGE.failed)) return undefined;
  // That nobody asked is believed only where the manager logs such messages at all.
  return { stopRequested: has(MESSAGE.starting, MESSAGE.started) ? false : undefined, startLimitHit };
}

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
