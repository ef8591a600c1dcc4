import type { UnitStatus } from '../actions/unit-manager.ts';
import { completeUnitName } from '../runtime/unit-name.ts';

/** Which units may be touched at all. */
export interface Allowlist {
  /** The shell patterns to ask systemd for; what `!` excludes is among what they match. */
  readonly patterns: readonly string[];
  allows(unit: string): boolean;
  /** By its own name: that is what polkit is asked about. What excludes one of its aliases excludes it. */
  allowsUnit(unit: Named): boolean;
  /** By any of its names; what excludes one of them excludes it. */
  covers(unit: Named): boolean;
  readonly excludesSome: boolean;
}

type Named = Pick<UnitStatus, 'unit' | 'names'>;

/** systemd's own limit and characters for a service's name; an instance may carry further `@`. */
const UNIT_NAME = /^[A-Za-z0-9_.:\\][A-Za-z0-9_.:\\-]*(?:@[A-Za-z0-9_.:\\@-]+)?\.service$/;
const PATTERN = /^[A-Za-z0-9_.:\\*?[\]!^@-]+$/;
const CLASS = /\[[!^]?\]?[^\]]*\[[:.]/;
/** Only services are healed. */
const OTHER_KIND = /\.(socket|timer|target|mount|automount|path|slice|scope|device|swap)$/;
const LONGEST_NAME = 255;

/** Whether that is the whole name of a service (of an instance, not of a template), with none but systemd's own characters. */
export function isUnitName(name: string): boolean {
  return name.length <= LONGEST_NAME && UNIT_NAME.test(name);
}

/**
 * Names and shell patterns (`*`, `?`, `[abc]`), separated by commas or spaces; `!` excludes, whatever the order.
 * @returns undefined when one of them could name no service, or when nothing is left to allow.
 */
export function parseUnitPatterns(given: string): readonly string[] | undefined {
  const written = given.split(/[\s,]+/).filter((part) => part !== '');
  const legal = written.every((part) => PATTERN.test(part) && !OTHER_KIND.test(part) && isMatchable(part));
  if (!legal || !written.some((part) => !part.startsWith('!'))) return undefined;
  return written.map((part) => (part.startsWith('!') ? `!${completeUnitName(part.slice(1))}` : completeUnitName(part)));
}

export function createAllowlist(patterns: readonly string[]): Allowlist {
  const wanted = patterns.filter((pattern) => !pattern.startsWith('!'));
  const matchers = wanted.map(matcherOf);
  const exclusions = patterns.filter((pattern) => pattern.startsWith('!')).map((pattern) => matcherOf(pattern.slice(1)));
  const excludes = (unit: string) => exclusions.some((exclusion) => exclusion.test(unit));
  const allows = (unit: string) => isUnitName(unit) && matchers.some((matcher) => matcher.test(unit)) && !excludes(unit);
  return {
    patterns: wanted,
    allows,
    allowsUnit: ({ unit, names }) => allows(unit) && !names.some(excludes),
    covers: ({ unit, names }) => [unit, ...names].some(allows) && !names.some(excludes),
    excludesSome: exclusions.length > 0,
  };
}

/** The same list as the sources of regular expressions over whole names, for those who match elsewhere. */
export function regularExpressions(patterns: readonly string[]): { wanted: string[]; excluded: string[] } {
  const sourceOf = (pattern: string) => matcherOf(pattern).source;
  return {
    wanted: patterns.filter((pattern) => !pattern.startsWith('!')).map(sourceOf),
    excluded: patterns.filter((pattern) => pattern.startsWith('!')).map((pattern) => sourceOf(pattern.slice(1))),
  };
}

/** A set such as `[z-a]` matches nothing anywhere; systemd knows classes such as `[[:digit:]]`, regular expressions do not. */
function isMatchable(pattern: string): boolean {
  if (CLASS.test(pattern)) return false;
  try {
    matcherOf(pattern);
    return true;
  } catch {
    return false;
  }
}

/** As fnmatch with FNM_NOESCAPE, which is how systemd matches: a backslash is a character like others. */
function matcherOf(pattern: string): RegExp {
  const source = pattern.replace(/\[[!^]?\]?[^\]]*\]|[\s\S]/g, (part) => {
    if (part === '*') return '.*';
    if (part === '?') return '.';
    if (part.length === 1) return part.replace(/[\\^$.|+()[\]{}]/, '\\$&');
    return part.replaceAll('\\', '\\\\').replace(/^\[!/, '[^');
  });
  return new RegExp(`^${source}$`, 's');
}
