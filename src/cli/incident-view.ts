import { adviseOn } from '../incidents/advice.ts';
import type { Severity } from '../incidents/class.ts';
import type { Incident, IncidentHistory } from '../incidents/listing.ts';
import { type Cell, type Colour, formatSeconds, oneLine, paint, painted, table } from './output.ts';

const SEVERITY_COLOUR: Record<Severity, Colour> = { critical: 'red', error: 'red', warning: 'yellow' };
const STATE_COLOUR: Partial<Record<Incident['state'], Colour>> = { acknowledged: 'dim', snoozed: 'dim', resolved: 'green' };

const stateOf = ({ state }: Incident): Cell => {
  const colour = STATE_COLOUR[state];
  return colour ? { text: state, colour } : state;
};

/** A line an incident: what is wrong, since when, how much, and whether somebody has it. */
export function describeList(incidents: readonly Incident[], total: number): string {
  if (total === 0) return 'no incidents';
  const lines = table(
    ['ID', 'SEVERITY', 'CLASS', 'STATE', 'OPENED', 'AT', 'AFFECTED', 'TIMES', 'NODE', 'SUMMARY'],
    incidents.map((incident) => [
      incident.id,
      { text: incident.severity, colour: SEVERITY_COLOUR[incident.severity] },
      incident.class,
      stateOf(incident),
      `${formatSeconds(incident.openedSeconds)} ago`,
      incident.openedAt.replace(/\.\d+Z$/, 'Z'),
      affected(incident),
      String(incident.occurrences),
      incident.node ?? '',
      incident.summary,
    ]),
  );
  const left = total - incidents.length;
  return left > 0 ? `${lines}\n${left} more: see --limit` : lines;
}

const affected = ({ affected: now, affectedMost }: Incident) => (now < affectedMost ? `${now} of ${affectedMost}` : String(now));

/** One incident whole: what, where, evidence, what happened so far, what is being done, what would help. */
export function describeWhole(incident: IncidentHistory): string {
  const when = relativeTo(incident);
  const { acknowledged, snoozed, resolvedAt, openings, stack, env, queues, node } = incident;
  const places = [
    node && `node ${node}`,
    stack && `stack ${stack}`,
    env && `env ${env}`,
    queues.length > 0 && `queues ${queues.join(' ')}`,
  ];
  const facts: [string, string][] = [
    ['opened', `${when(incident.openedAt)}${openings > 1 ? `, for the ${ordinal(openings)} time` : ''}`],
    ['first seen', when(incident.firstSeenAt)],
    ['last seen', when(incident.lastSeenAt)],
    ...(resolvedAt ? [['resolved', when(resolvedAt)] as [string, string]] : []),
    ['occurrences', String(incident.occurrences)],
    ['affected', affected(incident)],
    ['where', places.filter(Boolean).join(', ') || 'the fleet'],
    ...(acknowledged
      ? [['acknowledged', `by ${acknowledged.by} ${when(acknowledged.at)}: ${acknowledged.reason}`] as [string, string]]
      : []),
    ...(snoozed ? [['snoozed', `until ${snoozed.until} by ${snoozed.by}: ${snoozed.reason}`] as [string, string]] : []),
    ['fingerprint', incident.fingerprint],
  ];
  const evidence = Object.entries(incident.evidence).map(([name, value]): [string, string] => [name, spell(value)]);
  const { underWay, repairs } = adviseOn(incident);
  return [
    `incident ${incident.id}: ${incident.class}, ${paint(incident.severity, SEVERITY_COLOUR[incident.severity])}, ${painted(stateOf(incident))}`,
    oneLine(incident.summary),
    section('', facts),
    section('evidence', evidence),
    section(
      'timeline',
      timelineOf(incident).map(({ at, what }) => [when(at), what]),
    ),
    ...(resolvedAt
      ? []
      : [
          `\nunder way\n  ${oneLine(underWay)}`,
          section(
            'would help',
            repairs.map(({ command, effect }) => [command, `# ${effect}`]),
          ),
        ]),
  ].join('\n');
}

function section(title: string, rows: readonly [string, string][]): string {
  if (rows.length === 0) return `\n${title}\n  none`;
  const lines = table(['', ''], rows).split('\n').slice(1);
  return `\n${title === '' ? '' : `${title}\n`}${lines.map((line) => `  ${line}`).join('\n')}`;
}

/** The database's now, as it was at the look: no clock of ours takes part. */
function relativeTo({ lastSeenAt, lastSeenSeconds }: Incident): (at: string) => string {
  const now = Date.parse(lastSeenAt) + 1000 * lastSeenSeconds;
  return (at) => `${formatSeconds((now - Date.parse(at)) / 1000)} ago (${at})`;
}

interface Entry {
  at: string;
  what: string;
}

/** Everything that is kept of it, in the order of time. */
export function timelineOf(incident: IncidentHistory): Entry[] {
  const { history, occurrencesKept, rescues, audit, occurrences } = incident;
  const entries: Entry[] = [
    ...history.map(({ opening, openedAt }) => ({ at: openedAt, what: opening === 1 ? 'opened' : `reopened, opening ${opening}` })),
    ...history.flatMap(({ resolvedAt }) => (resolvedAt ? [{ at: resolvedAt, what: 'resolved: its condition was gone' }] : [])),
    ...occurrencesKept.map(({ number, at, node, summary }) => ({
      at,
      what: `occurrence ${number} of ${occurrences}, seen by ${node}: ${summary}`,
    })),
    ...rescues.map(({ at, node, outcome, policy, jobs }) => ({
      at,
      what: `${node} ${outcome} ${jobs} ${jobs === 1 ? 'attempt' : 'attempts'} (policy ${policy})`,
    })),
    ...audit.map(({ seq, at, actor, action, target, outcome, reason }) => ({
      at,
      what: `audit ${seq}: ${actor} ${action} ${target}: ${outcome}${reason ? ` (${reason})` : ''}`,
    })),
  ];
  return entries.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
}

function spell(value: unknown): string {
  if (value === null || value === undefined || value === '') return 'none';
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value.length === 0 ? 'none' : value.join(' ');
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function ordinal(count: number): string {
  const suffix = { one: 'st', two: 'nd', few: 'rd', other: 'th' } as Record<string, string>;
  return `${count}${suffix[new Intl.PluralRules('en', { type: 'ordinal' }).select(count)]}`;
}
