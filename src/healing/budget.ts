/** How much healing one unit gets without a person. */
export interface HealLimits {
  /** So many heals within the window open the breaker. */
  maxHeals: number;
  windowSeconds: number;
  /** Wait after the first heal of a window; doubled after each further one. */
  backoffSeconds: number;
  /** An open breaker closes by itself so long after the last heal. */
  quietSeconds: number;
}

/** A heal that was begun; ages by the database's clock. */
export interface PastHeal {
  startedSecondsAgo: number;
  /** Null where it is under way, or nobody knows. */
  endedSecondsAgo: number | null;
  automatic: boolean;
  healed: boolean;
}

export interface HealBudget {
  breaker: 'closed' | 'open';
  /** Heals that count against the limit now. */
  heals: number;
  /** Until the next heal may begin without a person; 0: now. */
  againInSeconds: number;
}

/**
 * What is left, from the history alone, so that a daemon that starts anew knows the same. Successes count as failures do: a
 * unit that needs healing again and again is not healed. A person's heal that succeeds begins a new count.
 */
export function judgeBudget(history: readonly PastHeal[], limits: HealLimits): HealBudget {
  let counted: PastHeal[] = [];
  let open = false;
  for (const heal of history.toSorted((a, b) => b.startedSecondsAgo - a.startedSecondsAgo)) {
    const last = counted.at(-1);
    if (open && last && endOf(last) - heal.startedSecondsAgo >= limits.quietSeconds) [counted, open] = [[], false];
    if (heal.automatic) {
      counted = [...withinWindow(counted, heal.startedSecondsAgo, limits), heal];
      open ||= counted.length >= limits.maxHeals;
    } else if (heal.healed) [counted, open] = [[], false];
  }
  const last = counted.at(-1);
  if (!last) return { breaker: 'closed', heals: 0, againInSeconds: 0 };
  const sinceLast = Math.max(0, endOf(last));
  if (open && sinceLast < limits.quietSeconds)
    return { breaker: 'open', heals: counted.length, againInSeconds: limits.quietSeconds - sinceLast };
  const recent = open ? [] : withinWindow(counted, 0, limits);
  const backoff = recent.length === 0 ? 0 : Math.min(limits.windowSeconds, limits.backoffSeconds * 2 ** (recent.length - 1));
  return { breaker: 'closed', heals: recent.length, againInSeconds: Math.max(0, backoff - sinceLast) };
}

const endOf = (heal: PastHeal) => heal.endedSecondsAgo ?? heal.startedSecondsAgo;

function withinWindow(heals: readonly PastHeal[], secondsAgo: number, { windowSeconds }: HealLimits): PastHeal[] {
  return heals.filter((heal) => heal.startedSecondsAgo - secondsAgo < windowSeconds);
}

/** Why a unit is not healed now, for a person. */
export function describeBudget({ breaker, heals, againInSeconds }: HealBudget): string {
  const times = `${heals} ${heals === 1 ? 'heal' : 'heals'}`;
  const wait = `${Math.ceil(againInSeconds)} s`;
  return breaker === 'open'
    ? `healing has stopped after ${times}: closed by a heal of yours that succeeds, or by itself in ${wait}`
    : `waits ${wait} after ${times}`;
}
