import { regularExpressions } from '../healing/allowlist.ts';
import { polkitRules } from '../systemd/polkit.ts';
import { requireConfig, type Surroundings } from './command.ts';
import { UsageError } from './usage-error.ts';

/** Prints the rule that lets the daemon's user do to the allowed units what healing does, and nothing else. */
export function printPolkitRules({ env, out }: Surroundings, { user }: { user: string }): void {
  const { units } = requireConfig({ DATABASE_URL: 'postgres://unused', ...env });
  if (units.length === 0) throw new UsageError('RECLAIMD_UNITS is not set: it names the units that the rule is to allow');
  out(polkitRules(user, regularExpressions(units)));
}
