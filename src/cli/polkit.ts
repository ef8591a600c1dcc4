import { regularExpressions } from '../healing/allowlist.ts';
import { polkitRules } from '../systemd/polkit.ts';
import { requireConfig, type Surroundings } from './command.ts';

/** Prints the rule that lets the daemon's user do to the allowed units what healing does, and nothing else. */
export function printPolkitRules({ env, out }: Surroundings, { user }: { user: string }): void {
  out(polkitRules(user, regularExpressions(requireConfig({ DATABASE_URL: 'postgres://unused', ...env }).units)));
}
