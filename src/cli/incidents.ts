import { parseDuration } from '../config.ts';
import { adviseOn } from '../incidents/advice.ts';
import { type AttentionDependencies, type AttentionRequest, type AttentionResult, acknowledge, snooze } from '../incidents/attention.ts';
import { INCIDENT_CLASSES, type IncidentClass, SEVERITIES, type Severity } from '../incidents/class.ts';
import { type IncidentFilter, listIncidents, readIncident } from '../incidents/listing.ts';
import type { Sql } from '../postgres/database.ts';
import { DatabaseError } from '../postgres/errors.ts';
import { systemClock } from '../runtime/clock.ts';
import { EXIT, type Surroundings, withReadyContext } from './command.ts';
import { describeList, describeWhole } from './incident-view.ts';
import { oneLine, printJson } from './output.ts';
import { UsageError } from './usage-error.ts';

export interface ListOptions {
  class?: string;
  severity?: string;
  node?: string;
  queue?: string;
  all?: true;
  resolved?: true;
  since?: string;
  limit?: string;
  watch?: true;
  json?: true;
}

const REDRAW_MS = 2_000;

/** What is wrong now, or was. */
export async function listAll(surroundings: Surroundings, options: ListOptions): Promise<void> {
  const filter = readFilter(options);
  await withReadyContext(surroundings, async ({ database }) => {
    if (options.watch) await watch(surroundings, database, filter, options.json === true);
    else if (options.json) printJson(surroundings, await listIncidents(database, filter));
    else surroundings.out(await drawList(database, filter));
  });
}

async function drawList(sql: Sql, filter: IncidentFilter): Promise<string> {
  const { incidents, total } = await listIncidents(sql, filter);
  return describeList(incidents, total);
}

/** Draws again and again until a signal; on a terminal in place. With JSON a line each. A database that is away is waited for. */
async function watch(surroundings: Surroundings, sql: Sql, filter: IncidentFilter, json: boolean): Promise<void> {
  const { signal, out } = surroundings;
  const draw = (text: string) => {
    if (process.stdout.isTTY) process.stdout.write('\x1b[H\x1b[2J');
    out(text);
  };
  while (!signal.aborted) {
    try {
      if (json) out(JSON.stringify(await listIncidents(sql, filter)));
      else draw(await drawList(sql, filter));
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      if (json) out(JSON.stringify({ error: error.message }));
      else draw(`the database does not answer, will try again: ${error.message}`);
    }
    await systemClock.sleep(REDRAW_MS, signal);
  }
}

function readFilter(options: ListOptions): IncidentFilter {
  const { node, queue, all, resolved, since, limit } = options;
  const incidentClass = oneOf<IncidentClass>('--class', options.class, INCIDENT_CLASSES);
  const severity = oneOf<Severity>('--severity', options.severity, SEVERITIES);
  if (all && resolved) throw new UsageError('--all and --resolved: allowed: one of the two');
  if (limit !== undefined && !/^[1-9]\d{0,5}$/.test(limit)) throw new UsageError(`--limit: given ${limit}; allowed: 1 to 999999`);
  return {
    state: all ? 'all' : resolved ? 'resolved' : 'open',
    ...(incidentClass ? { class: incidentClass } : {}),
    ...(severity ? { severity } : {}),
    ...(node === undefined ? {} : { node }),
    ...(queue === undefined ? {} : { queue }),
    ...(since === undefined ? {} : { withinSeconds: readSeconds('--since', since) }),
    ...(limit === undefined ? {} : { limit: Number(limit) }),
  };
}

function oneOf<Value extends string>(option: string, given: string | undefined, allowed: readonly Value[]): Value | undefined {
  if (given === undefined || allowed.includes(given as Value)) return given as Value | undefined;
  throw new UsageError(`${option}: given ${given}; allowed: ${allowed.join(', ')}`);
}

function readSeconds(option: string, given: string): number {
  const ms = parseDuration(given);
  if (ms === undefined || ms <= 0) throw new UsageError(`${option}: given ${given}; allowed: a duration such as 30s, 15m, 2h or 7d`);
  return ms / 1000;
}

/** One incident whole: evidence, history, what is being done about it and what would help. */
export async function show(surroundings: Surroundings, id: string, options: { json?: true }): Promise<number> {
  return withReadyContext(surroundings, async ({ database }) => {
    const incident = await readIncident(database, readId(id));
    if (!incident) {
      surroundings.out(`there is no incident ${id}: see \`reclaimd incidents --all\``);
      return EXIT.failed;
    }
    if (options.json) printJson(surroundings, { ...incident, advice: adviseOn(incident) });
    else surroundings.out(describeWhole(incident));
    return EXIT.done;
  });
}

interface AttentionOptions {
  reason: string;
  actor: string;
  json?: true;
}

export function acknowledgeOne(surroundings: Surroundings, id: string, options: AttentionOptions): Promise<number> {
  return attend(surroundings, id, options, (dependencies, request) => acknowledge(dependencies, request));
}

export async function snoozeOne(surroundings: Surroundings, id: string, options: AttentionOptions & { for: string }): Promise<number> {
  const seconds = readSeconds('--for', options.for);
  return attend(surroundings, id, options, (dependencies, request) => snooze(dependencies, { ...request, seconds }));
}

async function attend(
  surroundings: Surroundings,
  id: string,
  { reason, actor, json }: AttentionOptions,
  ask: (dependencies: AttentionDependencies, request: AttentionRequest) => Promise<AttentionResult>,
): Promise<number> {
  const incidentId = readId(id);
  return withReadyContext(surroundings, async (context) => {
    const { database, authorize, config } = context;
    const result = await ask({ database, authorize, node: config.node }, { incidentId, actor, reason });
    if (json) printJson(surroundings, result);
    else if (!result.done) surroundings.out(oneLine(result.refusal));
    else surroundings.out(describeAttention(id, result));
    return result.done ? EXIT.done : EXIT.refused;
  });
}

function describeAttention(id: string, { until, before: { acknowledged, snoozed } }: AttentionResult & { done: true }): string {
  return [
    until === null ? `incident ${id} is acknowledged` : `incident ${id} is snoozed until ${until}`,
    ...(acknowledged
      ? [`  ${oneLine(`it was acknowledged already, by ${acknowledged.by} at ${acknowledged.at}: ${acknowledged.reason}`)}`]
      : []),
    ...(snoozed ? [`  ${oneLine(`it was snoozed already, by ${snoozed.by} until ${snoozed.until}: ${snoozed.reason}`)}`] : []),
  ].join('\n');
}

function readId(id: string): string {
  if (/^\d{1,18}$/.test(id)) return id;
  throw new UsageError(`ID: given ${id}; allowed: a number, as \`reclaimd incidents\` shows it`);
}
