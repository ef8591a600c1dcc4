import { OUTCOMES } from '../audit/append.ts';
import { type ArchiveVerification, verifyArchive } from '../audit/archived.ts';
import { type AuditVerification, type ExpectedHead, sealAudit, verifyAudit } from '../audit/chain.ts';
import { type AuditFollower, followAudit } from '../audit/follow.ts';
import type { AuditProblem } from '../audit/problem.ts';
import { type AuditFilter, type AuditRow, listAudit } from '../audit/queries.ts';
import { parseDuration } from '../config.ts';
import { DatabaseError } from '../postgres/errors.ts';
import { respellJobTarget } from '../repairs/targets.ts';
import { createUnitReader } from '../retention/read-unit.ts';
import { systemClock } from '../runtime/clock.ts';
import { EXIT, type Surroundings, withReadyContext } from './command.ts';
import { type Cell, oneLine, paint, printJson, table } from './output.ts';
import { UsageError } from './usage-error.ts';

export interface ListOptions {
  actor?: string;
  action?: string;
  target?: string;
  outcome?: string;
  since?: string;
  limit: string;
  follow?: true;
  json?: true;
}

const FOLLOW_MS = 1_000;

/** The latest events, oldest first; `--follow` goes on with what comes. */
export async function list(surroundings: Surroundings, options: ListOptions): Promise<void> {
  const filter = readFilter(options);
  await withReadyContext(surroundings, async ({ database }) => {
    if (options.follow) return follow(surroundings, await followAudit(database, filter));
    const rows = await listAudit(database, filter);
    if (options.json) return printJson(surroundings, rows);
    surroundings.out(rows.length === 0 ? 'no events' : table(['AT', 'ACTOR', 'ACTION', 'TARGET', 'OUTCOME', 'REASON'], rows.map(cellsOf)));
  });
}

/** A line each, JSON or not, until interrupted. A database that is away is waited for, and that is said once. */
async function follow({ out, signal }: Surroundings, follower: AuditFollower): Promise<void> {
  const print = (rows: readonly AuditRow[]) => {
    for (const row of rows) out(JSON.stringify(row));
  };
  print(follower.first);
  let away = false;
  while (!signal.aborted) {
    await systemClock.sleep(FOLLOW_MS, signal);
    try {
      for await (const page of follower.next()) print(page);
      away = false;
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      if (!away) out(JSON.stringify({ error: error.message }));
      away = true;
    }
  }
}

function readFilter({ actor, action, target, outcome, since, limit }: ListOptions): AuditFilter {
  if (outcome !== undefined && !(OUTCOMES as readonly string[]).includes(outcome))
    throw new UsageError(`--outcome: given ${outcome}; allowed: ${OUTCOMES.join(', ')}`);
  if (!/^[1-9]\d{0,5}$/.test(limit)) throw new UsageError(`--limit: given ${limit}; allowed: a whole number from 1 to 999999`);
  const sinceMs = since === undefined ? undefined : parseDuration(since);
  if (since !== undefined && !sinceMs) throw new UsageError(`--since: given ${since}; allowed: a duration such as 30s, 10m or 7d`);
  const about = target === undefined ? undefined : respellJobTarget(target);
  return { actor, action, target: about, outcome, sinceSeconds: sinceMs === undefined ? undefined : sinceMs / 1000, limit: Number(limit) };
}

function cellsOf({ at, actor, action, target, outcome, reason }: AuditRow): Cell[] {
  const colour = outcome === 'done' ? 'green' : outcome === 'partial' ? 'yellow' : 'red';
  return [at, actor, action, target, { text: outcome, colour }, reason ?? ''];
}

/** Exit code 1 when anything was tampered with. */
export async function verify(surroundings: Surroundings, options: { expect?: string; archive?: true; json?: true }): Promise<number> {
  const expected = readExpected(options.expect);
  return withReadyContext(surroundings, async ({ database, config }) => {
    // What cannot be chained is found by the verification, which goes on.
    const notChained = await sealAudit(database).then(() => undefined, String);
    const chain = await verifyAudit(database, expected, { archiveToo: options.archive === true });
    const directory = config.archiveDirectory;
    const archive = options.archive
      ? await verifyArchive(database, createUnitReader(database, { directory, keptSeconds: config.retainArchiveMs / 1000 }), expected)
      : undefined;
    if (options.json) printJson(surroundings, { ...chain, notChained, archive });
    else
      surroundings.out(
        [
          ...(notChained === undefined ? [] : [`what came last cannot be chained: ${notChained}`]),
          ...(archive ? [describeArchive(archive)] : []),
          describe(chain),
        ].join('\n'),
      );
    return chain.intact && (archive?.intact ?? true) ? EXIT.done : EXIT.failed;
  });
}

function readExpected(given: string | undefined): ExpectedHead | undefined {
  if (given === undefined) return undefined;
  const [, position, hash] = /^(\d{1,15}):([0-9a-f]{64})$/.exec(given) ?? [];
  if (position === undefined || hash === undefined)
    throw new UsageError(`--expect: given ${given}; allowed: POSITION:HASH, as \`audit verify\` printed it`);
  return { position: Number(position), hash };
}

const line = ({ seq, position, what }: AuditProblem) =>
  oneLine(`${seq === null ? '' : `event ${seq}`}${position === null ? '' : ` (position ${position})`}: ${what}`);
const verdictOf = (intact: boolean, checked: number) =>
  intact ? paint(`intact: ${checked} events`, 'green') : paint(`NOT INTACT: ${checked} events looked at`, 'red');

function describeArchive({ intact, checked, begins, problems }: ArchiveVerification): string {
  const from = begins === null ? '' : `, from position ${begins}`;
  return [...problems.map(line), `in the archive: ${verdictOf(intact, checked)}${from}`].join('\n');
}

function describe({ intact, begins, checked, unsealed, head, problems }: AuditVerification): string {
  const waiting = unsealed === 0 ? '' : `, ${unsealed} not chained yet`;
  const from = begins === 1 ? '' : `, from position ${begins}: those before are in the archive`;
  return [
    ...problems.map(line),
    `${verdictOf(intact, checked)}${from}${waiting}`,
    `end of the chain, to be noted elsewhere: ${head.position}:${head.hash}`,
  ].join('\n');
}
