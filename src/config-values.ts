import { isIPv6 } from 'node:net';
import { validate as isCronExpression } from 'node-cron';
import { POLICIES, type Policy } from './actions/limits.ts';
import { parseUnitPatterns } from './healing/allowlist.ts';
import type { PolicyRule } from './recovery/policy.ts';
import { FLOW_POLICIES, type FlowPolicyRule } from './workflows/policy.ts';

/** Strict readers of what people write into variables: undefined means "not allowed", nothing is coerced. */
export interface ValueType<Value> {
  parse(given: string): Value | undefined;
  /** The other way round, where it is not just the text. */
  format?(value: Value): string;
  allowed: string;
}

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** @returns milliseconds, or undefined when it is no duration. */
export function parseDuration(given: string): number | undefined {
  const match = /^(\d{1,9})(ms|s|m|h|d)$/.exec(given);
  return match ? Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS] : undefined;
}

const UNITS = ['d', 'h', 'm', 's'] as const;

/** In the largest unit that says it exactly; no end is `never`. */
function formatDuration(ms: number): string {
  if (ms === Number.POSITIVE_INFINITY) return 'never';
  const unit = ms === 0 ? 's' : (UNITS.find((candidate) => ms % UNIT_MS[candidate] === 0) ?? 'ms');
  return `${ms / UNIT_MS[unit]}${unit}`;
}

export function duration(leastMs: number): ValueType<number> {
  return {
    allowed: `a duration such as 500ms, 30s, 2m, 1h or 7d${leastMs > 0 ? `, at least ${leastMs}ms` : ''}`,
    format: formatDuration,
    parse: (given) => {
      const ms = parseDuration(given);
      return ms !== undefined && ms >= leastMs ? ms : undefined;
    },
  };
}

/** A hundred years: with more the database's timestamps come to an end. */
const LONGEST_PERIOD = '36500d';

/** How long something is kept: a duration of at least `least`, or `never` for no end. */
export function period(least: string): ValueType<number> {
  const [leastMs, mostMs] = [parseDuration(least) ?? 0, parseDuration(LONGEST_PERIOD) ?? 0];
  return {
    allowed: `a duration of at least ${least} and at most ${LONGEST_PERIOD}, such as 12h or 30d, or \`never\` to keep it`,
    format: formatDuration,
    parse: (given) => {
      if (given === 'never') return Number.POSITIVE_INFINITY;
      const ms = parseDuration(given);
      return ms !== undefined && ms >= leastMs && ms <= mostMs ? ms : undefined;
    },
  };
}

/** As node-cron reads it. One minute of the hour: the nodes of a fleet come within five minutes of each other. */
export const cronSchedule: ValueType<string> = {
  allowed: 'a cron expression of five fields with one minute, such as `17 3 * * *`: at most once an hour',
  parse: (given) => {
    const [minute = '', ...others] = given.trim().split(/\s+/);
    return others.length === 4 && /^\d+$/.test(minute) && isCronExpression(given) ? given.trim() : undefined;
  },
};

export const timeZone: ValueType<string> = {
  allowed: 'a name such as `Europe/Berlin`',
  parse: (given) => {
    try {
      return new Intl.DateTimeFormat('en', { timeZone: given }).resolvedOptions().timeZone;
    } catch {
      return undefined;
    }
  },
};

export function integer(least: number, most: number): ValueType<number> {
  return {
    allowed: `a whole number from ${least} to ${most}`,
    parse: (given) => (/^\d{1,9}$/.test(given) && Number(given) >= least && Number(given) <= most ? Number(given) : undefined),
  };
}

export function oneOf<const Word extends string>(words: readonly Word[]): ValueType<Word> {
  return { allowed: words.map((word) => `\`${word}\``).join(', '), parse: (given) => words.find((word) => word === given) };
}

export const boolean: ValueType<boolean> = {
  allowed: '`true`, `false`',
  parse: (given) => (given === 'true' ? true : given === 'false' ? false : undefined),
};

export const text: ValueType<string> = {
  allowed: 'text, not empty',
  parse: (given) => (given.trim() === '' ? undefined : given),
};

/** In targets it stands before a unit's name: `NODE:UNIT`. */
export const nodeName: ValueType<string> = {
  allowed: 'text without a colon, not empty',
  parse: (given) => (given.trim() === '' || given.includes(':') ? undefined : given),
};

/** Postgres has 63 bytes for a name. The channel of replays is the schema's name and 16 bytes more: a longer one could not be told. */
export const postgresName: ValueType<string> = {
  allowed: 'a schema name of 1 to 47 bytes without `"`, not `$user`, not beginning with `pg_`',
  parse: (given) => {
    // On a search_path `$user` is the role's own schema, quoted or not.
    const reserved = given === '$user' || given.startsWith('pg_');
    return given !== '' && Buffer.byteLength(given) <= 47 && !/[\0"]/.test(given) && !reserved ? given : undefined;
  },
};

/** pg-boss's own rules: 50 bytes leave room for the names it derives; what it forbids inside quotes would break its SQL. */
export const pgbossName: ValueType<string> = {
  allowed:
    'a name as pg-boss takes it, of at most 50 bytes: letters, digits, `_`, not beginning with a digit; in double quotes anything but `"`, `\'`, `%`, `$`, `.` and `\\`',
  parse: (given) => {
    const quoted = /^"(.*)"$/s.exec(given)?.[1];
    const legal = quoted === undefined ? /^[A-Za-z_]\w*$/.test(given) : /^[^"'%$.\\\p{Cc}]+$/u.test(quoted);
    return legal && Buffer.byteLength(quoted ?? given) <= 50 ? given : undefined;
  },
};

export const databaseUrl: ValueType<string> = {
  allowed: '`postgres://USER:PASSWORD@HOST:PORT/DATABASE` or `embedded:DIR`',
  parse: (given) => {
    if (/^embedded:.+/.test(given)) return given;
    return /^postgres(ql)?:\/\//.test(given) && URL.canParse(given) ? given : undefined;
  },
};

export const listenAddress: ValueType<{ host: string; port: number } | 'off'> = {
  allowed: '`HOST:PORT` (IPv6 in brackets) or `off`',
  parse: (given) => {
    if (given === 'off') return 'off';
    const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5})$/.exec(given) ?? [];
    const host = bracketed !== undefined && isIPv6(bracketed) ? bracketed : plain;
    return host !== undefined && Number(port) <= 65_535 ? { host, port: Number(port) } : undefined;
  },
  format: (value) => (value === 'off' ? value : formatAddress(value)),
};

/** The address as it is written in a variable or a URL. */
export function formatAddress({ host, port }: { host: string; port: number }): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

/** What a rule may say of the poison limit, and of attempts without a beat. */
export const RULE_MAX = integer(0, 1000);
export const RULE_STALE = duration(1000);

export const policyRules: ValueType<readonly PolicyRule[]> = {
  allowed: `rules such as \`charge-*=hold,mail=restart:max=5:stale=10m\`; policies: ${POLICIES.join(', ')}`,
  parse: (given) => {
    const rules = given.split(',').map((rule) => parseRule(rule.trim()));
    return rules.every((rule) => rule !== undefined) ? rules : undefined;
  },
  format: (rules) => rules.map(formatRule).join(','),
};

function formatRule({ queue, policy, maxRecoveries, poison, staleAfterMs }: PolicyRule): string {
  const max = maxRecoveries === undefined ? '' : `:max=${maxRecoveries}`;
  const stale = staleAfterMs === undefined ? '' : `:stale=${formatDuration(staleAfterMs)}`;
  return `${queue}=${policy}${max}${poison === undefined ? '' : `:poison=${poison}`}${stale}`;
}

function parseRule(written: string): PolicyRule | undefined {
  const [head = '', ...options] = written.split(':');
  const [, queue, policy] = /^([^=]+)=(\w+)$/.exec(head) ?? [];
  if (queue === undefined || !POLICIES.includes(policy as Policy)) return undefined;
  const rule: PolicyRule = { queue, policy: policy as Policy };
  for (const option of options) {
    const [name, value = ''] = option.split('=');
    const max = RULE_MAX.parse(value);
    const stale = RULE_STALE.parse(value);
    if (name === 'max' && max !== undefined) rule.maxRecoveries = max;
    else if (name === 'poison' && (value === 'discard' || value === 'hold')) rule.poison = value;
    else if (name === 'stale' && stale !== undefined) rule.staleAfterMs = stale;
    else return undefined;
  }
  return rule;
}

export const flowPolicyRules: ValueType<readonly FlowPolicyRule[]> = {
  allowed: `rules such as \`mail-*=cancel-children,charge=retry-parent:max=2\`; policies: ${FLOW_POLICIES.join(', ')}`,
  parse: (given) => {
    const rules = given.split(',').map((rule) => parseFlowRule(rule.trim()));
    return rules.every((rule) => rule !== undefined) ? rules : undefined;
  },
  format: (rules) => rules.map(({ queue, policy, max }) => `${queue}=${policy}${policy === 'retry-parent' ? `:max=${max}` : ''}`).join(','),
};

function parseFlowRule(written: string): FlowPolicyRule | undefined {
  const [, queue, name, times = '1'] = /^([^=]+)=([a-z-]+)(?::max=(\d+))?$/.exec(written) ?? [];
  const policy = FLOW_POLICIES.find((known) => known === name);
  const max = integer(1, 100).parse(times);
  return queue === undefined || policy === undefined || max === undefined ? undefined : { queue, policy, max };
}

export const unitPatterns: ValueType<readonly string[]> = {
  allowed: 'names and patterns (`*`, `?`, `[abc]`; no classes such as `[:digit:]`) of services, such as `mail-worker@ app-* !app-database`',
  parse: parseUnitPatterns,
  format: (patterns) => patterns.join(' '),
};

/** Of a URL's parameters, those that hold no secret; a driver may know others that do, as `sslpassword`. */
const SHOWN_PARAMETERS = new Set(
  `host port dbname user sslmode sslcert sslkey sslrootcert sslnegotiation uselibpqcompat channel_binding target_session_attrs
   application_name fallback_application_name connect_timeout client_encoding gssencmode keepalives`.split(/\s+/),
);

/**
 * A URL without its password. What is no plain URL is not shown at all, for it may hold one anywhere: `user:password@host` parses as
 * a URL of scheme "user", and a password with a bare `/`, `?` or `#` lands, `@` and all, in the path or behind it.
 */
export function maskUrl(given: string): string {
  if (given.trim() === '') return '(empty)';
  if (given.startsWith('embedded:')) return given;
  if (!/^[a-z]+:\/\//.test(given) || !URL.canParse(given)) return '(not shown)';
  const url = new URL(given);
  if (`${url.pathname}${url.search}${url.hash}`.includes('@')) return '(not shown)';
  if (url.password) url.password = '***';
  for (const name of new Set(url.searchParams.keys())) if (!SHOWN_PARAMETERS.has(name)) url.searchParams.set(name, '***');
  return url.toString();
}

/** The known name that is closest to what was written, if it is close enough to be meant. */
export function closestName(given: string, known: readonly string[]): string | undefined {
  const ranked = known.map((name) => ({ name, distance: editDistance(given, name) })).sort((a, b) => a.distance - b.distance);
  // All names share a prefix: the number of typos that a suggestion survives grows with the rest of the name.
  const slips = Math.max(2, Math.floor(given.replace(/^RECLAIMD_/, '').length / 3));
  return ranked[0] && ranked[0].distance <= slips ? ranked[0].name : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (letter === b[j] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
