/** What healing asks of systemd; unit files, enablement and everything else stay forbidden. */
const VERBS = ['start', 'restart', 'stop', 'reset-failed'];

/**
 * A polkit rule (JavaScript, ES5) for /etc/polkit-1/rules.d. It answers for that user and those units alone: everything
 * else is left to the rules after it.
 */
export function polkitRules(user: string, units: { wanted: readonly string[]; excluded: readonly string[] }): string {
  return `// Made by \`reclaimd polkit\` from RECLAIMD_UNITS; make it anew when that changes.
polkit.addRule(function (action, subject) {
  if (action.id !== "org.freedesktop.systemd1.manage-units" || subject.user !== ${JSON.stringify(user)}) return undefined;
  var verbs = ${JSON.stringify(VERBS)};
  var wanted = ${JSON.stringify(units.wanted)};
  var excluded = ${JSON.stringify(units.excluded)};
  var unit = action.lookup("unit") || "";
  function matches(pattern) {
    return new RegExp(pattern).test(unit);
  }
  if (verbs.indexOf(action.lookup("verb")) === -1 || !/\\.service$/.test(unit)) return undefined;
  return wanted.some(matches) && !excluded.some(matches) ? polkit.Result.YES : undefined;
});`;
}
