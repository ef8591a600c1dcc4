import { type Check, examine } from '../doctor.ts';
import { EXIT, type Surroundings, withContext } from './command.ts';
import { type Colour, paint, printJson } from './output.ts';

const COLOUR: Record<Check['status'], Colour> = { ok: 'green', warn: 'yellow', fail: 'red', skipped: 'dim' };

/** What the daemon stands on, as whoever runs this may see it; exit code 1 when something fails (with `strict`: or is doubtful). */
export function doctor(surroundings: Surroundings, { json, strict }: { json?: true; strict?: true }): Promise<number> {
  return withContext(surroundings, async (context) => {
    const checks: Check[] = [];
    for await (const check of examine(context)) {
      checks.push(check);
      if (!json) surroundings.out(describe(check));
    }
    if (json) printJson(surroundings, { version: 1, checks });
    const bad = checks.filter(({ status }) => status === 'fail' || (strict && status === 'warn'));
    return bad.length > 0 ? EXIT.failed : EXIT.done;
  });
}

function describe({ name, status, detail, mend }: Check): string {
  const line = `${paint(status.padEnd(7), COLOUR[status])} ${name}: ${detail}`;
  return mend === undefined ? line : `${line}\n${' '.repeat(8)}-> ${mend}`;
}
