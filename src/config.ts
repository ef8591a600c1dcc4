import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { POLICIES, type PoisonPolicy, type Policy } from './actions/limits.ts';
import {
  boolean,
  closestName,
  cronSchedule,
  databaseUrl,
  duration,
  flowPolicyRules,
  integer,
  listenAddress,
  maskUrl,
  nodeName,
  oneOf,
  parseDuration,
  period,
  pgbossName,
  policyRules,
  postgresName,
  text,
  timeZone,
  unitPatterns,
} from './config-values.ts';
import { catalogName } from './pgboss/schema-name.ts';
import type { PolicyRule } from './recovery/policy.ts';
import type { LogLevel } from './runtime/logger.ts';
import type { FlowPolicyRule } from './workflows/policy.ts';

export { parseDuration };

export interface Config {
  databaseUrl: string;
  node: string;
  schema: string;
  pgbossSchema: string;
  pgbossModule: string | undefined;
  stack: string | undefined;
  env: string | undefined;
  listen: { host: string; port: number } | 'off';
  logLevel: LogLevel;
  dryRun: boolean;
  policy: Policy;
  policies: readonly PolicyRule[];
  policyModule: string | undefined;
  maxRecoveries: number;
  poison: PoisonPolicy;
  startupDelayMs: number;
  outageGraceMs: number;
  sweepIntervalMs: number;
  batch: number;
  brakePercent: number;
  brakeMinimum: number;
  actorsFile: string | undefined;
  poolMax: number;
  processes: 'auto' | 'on' | 'off';
  systemd: 'auto' | 'system' | 'user' | 'off';
  systemdBus: string | undefined;
  units: readonly string[];
  heal: 'auto' | 'off';
  healStopped: boolean;
  unitsDesired: readonly string[];
  unitsStopped: readonly string[];
  hungAfterMs: number | undefined;
  healSettleMs: number;
  healBackoffMs: number;
  healMax: number;
  healWindowMs: number;
  healQuietMs: number;
  flapRestarts: number;
  flapWindowMs: number;
  retentionSchedule: string;
  retentionZone: string | undefined;
  retentionBudgetMs: number;
  archiveDirectory: string | undefined;
  retainAttemptsMs: number;
  retainRecoveriesMs: number;
  retainExecutorsMs: number;
  retainNodesMs: number;
  retainDaemonsMs: number;
  retainIncidentsMs: number;
  retainPreviewsMs: number;
  retainHealsMs: number;
  retainUnitLivesMs: number;
  retainCrashesMs: number;
  retainCommandsMs: number;
  retainWorkflowsMs: number;
  retainWorkflowActionsMs: number;
  retainAuditMs: number;
  retainRunsMs: number;
  retainRestoredMs: number;
  retainArchiveMs: number;
  reconcileIntervalMs: number;
  workflowPolicies: readonly FlowPolicyRule[];
  replayAfterMs: number;
  replayMax: number;
  pgbossSupervise: boolean;
}

export interface Problem {
  variable: string;
  /** What was given, secrets masked; undefined when nothing was. */
  given: string | undefined;
  allowed: string;
}

/** How one variable is read. `parse` returns undefined for what is not allowed. */
interface Variable<Value> {
  name: string;
  /** As text, the way a user would write it; undefined: none. `required`: there is no default. */
  default: string | undefined;
  required?: true;
  secret?: true;
  parse(given: string): Value | undefined;
  format?(value: Value): string;
  allowed: string;
  meaning: string;
}

type Variables = { [Key in keyof Config]: Variable<Exclude<Config[Key], undefined>> };

/** The one place that knows the environment: parsing, the README's table and check-config all come from here. */
const variables: Variables = {
  databaseUrl: {
    name: 'DATABASE_URL',
    default: undefined,
    required: true,
    secret: true,
    ...databaseUrl,
    meaning:
      'The database that pg-boss lives in. `embedded:DIR` starts a private Postgres there, for trying out; commands take its URL from `DIR/database-url`, by `DATABASE_URL_FILE`.',
  },
  node: {
    name: 'RECLAIMD_NODE',
    default: hostname(),
    ...nodeName,
    meaning: 'Name of this node; each daemon of a fleet has its own. Default: the host name.',
  },
  schema: {
    name: 'RECLAIMD_SCHEMA',
    default: 'reclaimd',
    ...postgresName,
    meaning: "reclaimd's own schema. One serves one pg-boss schema.",
  },
  pgbossSchema: {
    name: 'RECLAIMD_PGBOSS_SCHEMA',
    default: 'pgboss',
    ...pgbossName,
    meaning: 'pg-boss\'s schema, spelled as the application gives it to pg-boss: bare names fold to lower case, `"Quoted-Name"` stands.',
  },
  pgbossModule: {
    name: 'RECLAIMD_PGBOSS_MODULE',
    default: undefined,
    ...text,
    meaning: "Directory of the application (or of its pg-boss package), to use the application's own pg-boss release instead of ours.",
  },
  stack: {
    name: 'RECLAIMD_STACK',
    default: undefined,
    ...text,
    meaning: 'Stack that this node serves: it acts on executors of that stack, and on those without one.',
  },
  env: {
    name: 'RECLAIMD_ENV',
    default: undefined,
    ...text,
    meaning: 'Environment that this node serves: it acts on executors of exactly that environment; none means none.',
  },
  listen: {
    name: 'RECLAIMD_LISTEN',
    default: '127.0.0.1:9464',
    ...listenAddress,
    meaning: 'Where `/metrics`, `/livez` and `/readyz` are served; port 0 takes a free one, `off` serves none.',
  },
  logLevel: {
    name: 'RECLAIMD_LOG_LEVEL',
    default: 'info',
    ...oneOf(['debug', 'info', 'warn', 'error', 'silent'] as const),
    meaning: 'Least severity that is logged.',
  },
  dryRun: { name: 'RECLAIMD_DRY_RUN', default: 'false', ...boolean, meaning: 'Say what would be done and touch no job.' },
  policy: { name: 'RECLAIMD_POLICY', default: 'fail', ...oneOf(POLICIES), meaning: 'Policy for orphans that no rule names.' },
  policies: {
    name: 'RECLAIMD_POLICIES',
    default: undefined,
    ...policyRules,
    meaning:
      'Rules, first match wins, comma separated: `QUEUE=POLICY[:max=N][:poison=discard\\|hold][:stale=DURATION]`; `*` in QUEUE matches anything.',
  },
  policyModule: {
    name: 'RECLAIMD_POLICY_MODULE',
    default: undefined,
    ...text,
    meaning: 'Module whose `resolvePolicy(attempt)` is asked first.',
  },
  maxRecoveries: {
    name: 'RECLAIMD_MAX_RECOVERIES',
    default: '3',
    ...integer(0, 1000),
    meaning: 'Recoveries of one job before it counts as poison.',
  },
  poison: {
    name: 'RECLAIMD_POISON',
    default: 'discard',
    ...oneOf(['discard', 'hold'] as const),
    meaning: 'What becomes of a poison job: ended (dead letter, if the queue has one), or left for a person.',
  },
  startupDelayMs: {
    name: 'RECLAIMD_STARTUP_DELAY',
    default: '2m',
    ...duration(0),
    meaning: 'After its start a daemon takes nobody by silence alone for so long.',
  },
  outageGraceMs: {
    name: 'RECLAIMD_OUTAGE_GRACE',
    default: '2m',
    ...duration(0),
    meaning: 'After the database, a daemon or a host comes back, silence counts for nothing for so long.',
  },
  sweepIntervalMs: {
    name: 'RECLAIMD_SWEEP_INTERVAL',
    default: '10s',
    ...duration(500),
    meaning: 'Time between the sweeps of the fleet; deaths are swept at once besides.',
  },
  batch: { name: 'RECLAIMD_BATCH', default: '1000', ...integer(1, 5000), meaning: 'Attempts taken in one transaction.' },
  brakePercent: {
    name: 'RECLAIMD_BRAKE_PERCENT',
    default: '55',
    ...integer(1, 100),
    meaning: 'Mass-failure brake: when more than this share of the executors falls silent together, none of them is taken.',
  },
  brakeMinimum: {
    name: 'RECLAIMD_BRAKE_MINIMUM',
    default: '3',
    ...integer(1, 100_000),
    meaning: 'The brake needs at least so many silent executors.',
  },
  actorsFile: {
    name: 'RECLAIMD_ACTORS_FILE',
    default: undefined,
    ...text,
    meaning: "JSON file that says who may do what with the commands; none: the database's privileges alone decide.",
  },
  poolMax: { name: 'RECLAIMD_POOL_MAX', default: '5', ...integer(2, 100), meaning: 'Database connections at most; one more listens.' },
  processes: {
    name: 'RECLAIMD_PROCESSES',
    default: 'auto',
    ...oneOf(['auto', 'on', 'off'] as const),
    meaning:
      "Whether this host's processes are looked at. `auto`: where the daemon sees the pids of a whole machine. `on` says that every worker under this host name is in the daemon's own pid namespace, or one below it. `off`: executors are judged by their beats.",
  },
  systemd: {
    name: 'RECLAIMD_SYSTEMD',
    default: 'auto',
    ...oneOf(['auto', 'system', 'user', 'off'] as const),
    meaning: "Whose service manager is asked: the system's or the user's. `auto`: the system's, where the host was booted with systemd.",
  },
  systemdBus: {
    name: 'RECLAIMD_SYSTEMD_BUS',
    default: undefined,
    ...text,
    meaning: 'Socket of the D-Bus that leads to it, where it is not `/run/dbus/system_bus_socket` (`user`: `/run/user/UID/bus`).',
  },
  units: {
    name: 'RECLAIMD_UNITS',
    default: undefined,
    ...unitPatterns,
    meaning: 'The systemd services that may be touched at all. None: no unit is ever healed.',
  },
  heal: {
    name: 'RECLAIMD_HEAL',
    default: 'auto',
    ...oneOf(['auto', 'off'] as const),
    meaning: 'Whether the daemon heals failed units by itself; `off`: it reports them, and restarts none for RECLAIMD_HUNG_AFTER either.',
  },
  healStopped: {
    name: 'RECLAIMD_HEAL_STOPPED',
    default: 'false',
    ...boolean,
    meaning: 'Start units, too, that should run and ended by themselves without failing; otherwise they are reported.',
  },
  unitsDesired: {
    name: 'RECLAIMD_UNITS_DESIRED',
    default: undefined,
    ...unitPatterns,
    meaning: 'Units of RECLAIMD_UNITS that should run even where they are not enabled.',
  },
  unitsStopped: {
    name: 'RECLAIMD_UNITS_STOPPED',
    default: undefined,
    ...unitPatterns,
    meaning: 'Units of RECLAIMD_UNITS that are down on purpose: neither reported nor healed.',
  },
  hungAfterMs: {
    name: 'RECLAIMD_HUNG_AFTER',
    default: undefined,
    ...duration(10_000),
    meaning:
      'Restart the unit of a worker whose process is there but silent for so long; its jobs come back once it is proven gone. None: never.',
  },
  healSettleMs: {
    name: 'RECLAIMD_HEAL_SETTLE',
    default: '5s',
    ...duration(0),
    meaning: 'A unit counts as healed when it has stayed up for so long.',
  },
  healBackoffMs: {
    name: 'RECLAIMD_HEAL_BACKOFF',
    default: '10s',
    ...duration(0),
    meaning: 'Wait between the first and the second heal of a unit; doubled each further time.',
  },
  healMax: {
    name: 'RECLAIMD_HEAL_MAX',
    default: '3',
    ...integer(1, 1000),
    meaning: 'Heals of one unit within the window before the breaker opens.',
  },
  healWindowMs: { name: 'RECLAIMD_HEAL_WINDOW', default: '10m', ...duration(1000), meaning: 'The window that heals are counted in.' },
  healQuietMs: {
    name: 'RECLAIMD_HEAL_QUIET',
    default: '1h',
    ...duration(1000),
    meaning: "An open breaker closes so long after the last heal, or with a person's heal that succeeds.",
  },
  flapRestarts: {
    name: 'RECLAIMD_FLAP_RESTARTS',
    default: '5',
    ...integer(1, 100_000),
    meaning: 'So many restarts by systemd itself within the window are flapping.',
  },
  flapWindowMs: { name: 'RECLAIMD_FLAP_WINDOW', default: '10m', ...duration(1000), meaning: 'The window that restarts are counted in.' },
  reconcileIntervalMs: {
    name: 'RECLAIMD_RECONCILE_INTERVAL',
    default: '15s',
    ...duration(500),
    meaning: 'Time between the looks for stuck flows and for steps of workflows that missed their event.',
  },
  workflowPolicies: {
    name: 'RECLAIMD_WORKFLOW_POLICIES',
    default: undefined,
    ...flowPolicyRules,
    meaning:
      'What becomes of flows stuck behind a parent of a queue, first match wins: `QUEUE=hold\\|cancel-children\\|retry-parent[:max=N]`; no rule: hold. `max` (default 1) bounds the retries of one parent.',
  },
  replayAfterMs: {
    name: 'RECLAIMD_REPLAY_AFTER',
    default: '10s',
    ...duration(0),
    meaning: 'A step whose job ended is given so long to be moved on before its event is emitted again, and doubled each further time.',
  },
  pgbossSupervise: {
    name: 'RECLAIMD_PGBOSS_SUPERVISE',
    default: 'false',
    ...boolean,
    meaning:
      "The daemons run pg-boss's supervision and resolve its flows, held back after outages; every worker must have `supervise: false` then.",
  },
  replayMax: {
    name: 'RECLAIMD_REPLAY_MAX',
    default: '10',
    ...integer(1, 1000),
    meaning: "Times that one step's event is emitted again before it is an incident.",
  },
  retentionSchedule: {
    name: 'RECLAIMD_RETENTION_SCHEDULE',
    default: '17 3 * * *',
    ...cronSchedule,
    meaning: 'When what is due is pruned, by one node of the fleet.',
  },
  retentionZone: {
    name: 'RECLAIMD_RETENTION_TIME_ZONE',
    default: undefined,
    ...timeZone,
    meaning: "Time zone of the schedule; none: the host's.",
  },
  retentionBudgetMs: {
    name: 'RECLAIMD_RETENTION_BUDGET',
    default: '5m',
    ...duration(1000),
    meaning: 'A run ends after so long; the next goes on.',
  },
  archiveDirectory: {
    name: 'RECLAIMD_ARCHIVE_DIR',
    default: undefined,
    ...text,
    meaning: 'Directory, there already, that what is archived goes to as compressed files; none: it goes to the table `archive`.',
  },
  retainAttemptsMs: {
    name: 'RECLAIMD_RETAIN_ATTEMPTS',
    default: '5m',
    ...period('1m'),
    meaning: 'Finished attempts stay in the record of ownership for so long at least, then go by rotation.',
  },
  retainRecoveriesMs: {
    name: 'RECLAIMD_RETAIN_RECOVERIES',
    default: '90d',
    ...period('7d'),
    meaning: 'Recoveries (the poison limit counts by them) are kept for so long, then archived.',
  },
  retainExecutorsMs: {
    name: 'RECLAIMD_RETAIN_EXECUTORS',
    default: '7d',
    ...period('2d'),
    meaning: 'Executors since their last sign are kept for so long.',
  },
  retainNodesMs: {
    name: 'RECLAIMD_RETAIN_NODES',
    default: '30d',
    ...period('1d'),
    meaning: 'Nodes since their last beat are kept for so long.',
  },
  retainDaemonsMs: {
    name: 'RECLAIMD_RETAIN_DAEMONS',
    default: '7d',
    ...period('2d'),
    meaning: 'Lives of daemons since their last beat are kept for so long.',
  },
  retainIncidentsMs: {
    name: 'RECLAIMD_RETAIN_INCIDENTS',
    default: '90d',
    ...period('1d'),
    meaning: 'Resolved incidents with their occurrences are kept for so long, then archived.',
  },
  retainPreviewsMs: {
    name: 'RECLAIMD_RETAIN_PREVIEWS',
    default: '7d',
    ...period('1h'),
    meaning: 'Previews of repairs since their end are kept for so long.',
  },
  retainHealsMs: {
    name: 'RECLAIMD_RETAIN_HEALS',
    default: '90d',
    ...period('1d'),
    meaning: 'Heals and other changes of units are kept for so long, then archived.',
  },
  retainUnitLivesMs: {
    name: 'RECLAIMD_RETAIN_UNIT_LIVES',
    default: '7d',
    ...period('1d'),
    meaning: 'Lives of units, which flapping is judged by are kept for so long.',
  },
  retainCrashesMs: {
    name: 'RECLAIMD_RETAIN_CRASHES',
    default: '90d',
    ...period('1d'),
    meaning: 'Crashes of units are kept for so long, then archived.',
  },
  retainCommandsMs: {
    name: 'RECLAIMD_RETAIN_COMMANDS',
    default: '7d',
    ...period('1h'),
    meaning: 'Commands for other nodes are kept for so long.',
  },
  retainWorkflowsMs: {
    name: 'RECLAIMD_RETAIN_WORKFLOWS',
    default: '30d',
    ...period('1h'),
    meaning: 'Workflow instances that ended, with their steps are kept for so long.',
  },
  retainWorkflowActionsMs: {
    name: 'RECLAIMD_RETAIN_WORKFLOW_ACTIONS',
    default: '30d',
    ...period('1d'),
    meaning: 'Retries of parents, which their limit counts by are kept for so long.',
  },
  retainAuditMs: {
    name: 'RECLAIMD_RETAIN_AUDIT',
    default: '365d',
    ...period('30d'),
    meaning: 'Events of the audit are kept for so long, then archived; the chain goes on from a checkpoint.',
  },
  retainRunsMs: { name: 'RECLAIMD_RETAIN_RUNS', default: '90d', ...period('1d'), meaning: 'Runs of retention are kept for so long.' },
  retainRestoredMs: {
    name: 'RECLAIMD_RETAIN_RESTORED',
    default: '7d',
    ...period('1h'),
    meaning: 'What `retention restore` read back is kept for so long.',
  },
  retainArchiveMs: {
    name: 'RECLAIMD_RETAIN_ARCHIVE',
    default: '365d',
    ...period('1d'),
    meaning: 'The archive itself, table and files, is kept for so long.',
  },
};

/** Lists are empty, not absent. */
const LISTS: readonly (keyof Config)[] = ['policies', 'units', 'unitsDesired', 'unitsStopped', 'workflowPolicies'];

/** With problems: what could be read all the same. */
export function loadConfig(
  env: Record<string, string | undefined>,
): { config: Config } | { problems: Problem[]; readable: Partial<Config> } {
  const problems = unknownNames(env);
  const values: Partial<Record<keyof Config, unknown>> = {};
  for (const [key, variable] of Object.entries(variables) as [keyof Config, Variable<unknown>][]) {
    const read = readVariable(env, variable, problems);
    if (read === undefined) values[key] = LISTS.includes(key) ? [] : undefined;
    else values[key] = read.value;
  }
  if (values.pgbossSupervise === true && values.outageGraceMs === 0)
    problems.push({
      variable: variables.outageGraceMs.name,
      given: '"0s", with RECLAIMD_PGBOSS_SUPERVISE',
      allowed: 'longer than the time between two beats of any queue: without it an outage fails live jobs',
    });
  const schema = values.schema as string | undefined;
  if (schema !== undefined && schema === catalogName((values.pgbossSchema as string | undefined) ?? ''))
    problems.push({ variable: variables.schema.name, given: JSON.stringify(schema), allowed: "a schema of its own, not pg-boss's" });
  const read = freeze(values as Partial<Config>);
  return problems.length > 0 ? { problems, readable: read } : { config: read as Config };
}

/** Settings do not change under those who hold them, the lists and addresses among them neither. */
function freeze<Value>(value: Value): Value {
  if (typeof value !== 'object' || value === null) return value;
  for (const part of Object.values(value)) freeze(part);
  return Object.freeze(value);
}

function readVariable(
  env: Record<string, string | undefined>,
  variable: Variable<unknown>,
  problems: Problem[],
): { value: unknown } | undefined {
  const { name, secret, allowed } = variable;
  const file = env[`${name}_FILE`];
  let given = env[name];
  if (file !== undefined) {
    if (given !== undefined) problems.push({ variable: name, given: `both ${name} and ${name}_FILE`, allowed: 'one of the two' });
    try {
      given = readFileSync(file, 'utf8').trim();
    } catch (error) {
      problems.push({
        variable: `${name}_FILE`,
        given: file,
        allowed: `a readable file (${(error as NodeJS.ErrnoException).code ?? error})`,
      });
      return undefined;
    }
  }
  const text = given ?? variable.default;
  if (text === undefined) {
    if (variable.required) problems.push({ variable: name, given: undefined, allowed });
    return undefined;
  }
  const value = variable.parse(text);
  if (value === undefined) problems.push({ variable: name, given: secret ? maskUrl(text) : JSON.stringify(text), allowed });
  return { value };
}

function unknownNames(env: Record<string, string | undefined>): Problem[] {
  const names = Object.values(variables).map((variable) => variable.name);
  const known = new Set(names.flatMap((name) => [name, `${name}_FILE`]));
  return Object.keys(env)
    .filter((name) => name.startsWith('RECLAIMD_') && !known.has(name))
    .map((name) => {
      const closest = closestName(name, names);
      return {
        variable: name,
        given: 'a variable that does not exist',
        allowed: closest ? `did you mean ${closest}?` : 'see the table in the README',
      };
    });
}

/** What is in force, secrets masked, spelled as a variable takes it, in the table's order. */
export function describeConfig(config: Config): { variable: string; value: string }[] {
  return (Object.entries(variables) as [keyof Config, Variable<unknown>][]).map(([key, variable]) => ({
    variable: variable.name,
    value: describeValue(config[key], variable),
  }));
}

function describeValue(value: unknown, { secret, format = String }: Variable<unknown>): string {
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return '(none)';
  return secret ? maskUrl(String(value)) : format(value);
}

/** The README's table of environment variables; a test compares the two. */
export function variablesTable(): string {
  const rows = Object.values(variables).map((variable) => {
    const fallback = variable.name === 'RECLAIMD_NODE' ? 'host name' : variable.required ? 'required' : (variable.default ?? 'none');
    return `| \`${variable.name}\` | ${fallback === 'required' || fallback === 'none' || fallback === 'host name' ? fallback : `\`${fallback}\``} | ${variable.meaning} Allowed: ${variable.allowed}. |`;
  });
  return ['| variable | default | meaning |', '| --- | --- | --- |', ...rows].join('\n');
}
