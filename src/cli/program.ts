import { Command } from 'commander';
import { REPAIR_ACTIONS } from '../repairs/preview.ts';
import { accountName } from './actor.ts';
import * as audit from './audit.ts';
import { checkConfig } from './check-config.ts';
import type { Surroundings } from './command.ts';
import { demo } from './demo.ts';
import { doctor } from './doctor.ts';
import { executors } from './executors.ts';
import { type HealOptions, heal } from './heal.ts';
import * as incidents from './incidents.ts';
import * as policies from './policies.ts';
import { printPolkitRules } from './polkit.ts';
import { type ReconcileCommand, reconcile } from './reconcile.ts';
import * as repairs from './repairs.ts';
import * as retention from './retention.ts';
import { run } from './run.ts';
import { runGrants, runInstallOwnership, runMigrate, runRemoveOwnership } from './schema.ts';
import { status } from './status.ts';
import { orphans, runSweep } from './sweep.ts';
import { units } from './units.ts';
import { workflows } from './workflows.ts';

/** Every command, thin: arguments in, a function called, its exit code out through `exitWith`. */
export function createProgram(surroundings: Surroundings, version: string, exitWith: (code: number) => void): Command {
  const program = new Command('reclaimd')
    .description('Recovery supervisor for pg-boss workers. Configured by environment variables: see `reclaimd check-config`.')
    .version(version)
    .showHelpAfterError('(see --help)')
    .exitOverride();
  const command = (name: string, description: string) => program.command(name).description(description);
  const json = ['--json', 'print JSON'] as const;
  const actor = ['--actor <who>', 'who asks, as the audit names them', accountName(surroundings.env)] as const;

  command('run', 'run the daemon until SIGTERM or SIGINT').action(() => run(surroundings));
  command('demo', 'show it at work: a private Postgres, two daemons, workers that get killed')
    .option('--once', 'one kill of each kind, then a summary; exit 0 only if every job ended exactly once')
    .option(...json)
    .action(async (options: { once?: true; json?: true }) => exitWith(await demo(surroundings, options)));
  command('check-config', 'print what is in force, or every problem at once')
    .option(...json)
    .action((options: { json?: true }) => checkConfig(surroundings, options));
  command('migrate', "create or update reclaimd's own schema").action(() => runMigrate(surroundings));
  command('install-ownership', 'record who runs which job: triggers on the job tables; safe while workers run')
    .option(...actor)
    .action(async (options: { actor: string }) => exitWith(await runInstallOwnership(surroundings, options)));
  command('remove-ownership', 'take the triggers away again')
    .option(...actor)
    .action(async (options: { actor: string }) => exitWith(await runRemoveOwnership(surroundings, options)));
  command('grants', 'print the least privileges for a role that runs the daemon')
    .option('--role <name>', 'the role', 'reclaimd')
    .action((options: { role: string }) => runGrants(surroundings, options));
  command('doctor', 'everything that the daemon stands on, and how to mend what is missing; run it as its user')
    .option('--strict', 'what is doubtful fails, too')
    .option(...json)
    .action(async (options: { json?: true; strict?: true }) => exitWith(await doctor(surroundings, options)));
  command('polkit', 'print the polkit rule that lets the daemon heal the units of RECLAIMD_UNITS')
    .option('--user <name>', 'that the daemon runs as', 'reclaimd')
    .action((options: { user: string }) => printPolkitRules(surroundings, options));
  command('status', 'the fleet at a glance')
    .option(...json)
    .action((options: { json?: true }) => status(surroundings, options));
  command('executors', 'every executor with its verdict')
    .option('--all', 'with those that stopped gracefully')
    .option(...json)
    .action((options: { json?: true; all?: true }) => executors(surroundings, options));
  command('orphans', 'jobs that nobody works on any more, and what a sweep would do')
    .option(...json)
    .action((options: { json?: true }) => orphans(surroundings, options));
  command('sweep', 'one sweep now')
    .option('--dry-run', 'say what it would do and touch nothing')
    .option('--executor <id>', 'only the attempts of this executor')
    .option(...actor)
    .option(...json)
    .action(async (options: { json?: true; dryRun?: true; executor?: string; actor: string }) =>
      exitWith(await runSweep(surroundings, options)),
    );

  command('reconcile', 'one pass over workflows now: missed events told again, stuck flows settled by policy')
    .option('--dry-run', 'say what it would do and touch nothing')
    .option('--again <step>', 'instead of a pass: INSTANCE/STEP that was told as often as allowed gets its event anew')
    .option('--reason <text>', 'why, with --again; 8 characters or more')
    .option(...actor)
    .option(...json)
    .action(async (options: ReconcileCommand) => exitWith(await reconcile(surroundings, options)));
  command('workflows', 'flows that wait in vain, and steps of engines that were not moved on')
    .option(...json)
    .action((options: { json?: true }) => workflows(surroundings, options));

  command('preview', 'what a repair would do, and the token that executes it')
    .argument('<action>', REPAIR_ACTIONS.join(', '))
    .argument('<target...>', 'QUEUE/JOB-ID, the id of an executor, UNIT or NODE:UNIT')
    .option('--policy <policy>', "of a rescue: restart, fail or discard, instead of each job's own")
    .option(...actor)
    .option(...json)
    .action(async (action: string, targets: string[], options: repairs.PreviewOptions) =>
      exitWith(await repairs.preview(surroundings, action, targets, options)),
    );
  command('execute', 'carry out what a preview showed: once, and only if it is still so')
    .argument('<token>', 'that `preview` printed')
    .option('--reason <text>', 'why; 8 characters or more; asked for on a terminal')
    .option(...actor)
    .option(...json)
    .action(async (token: string, options: repairs.ExecuteOptions) => exitWith(await repairs.execute(surroundings, token, options)));

  command('units', 'the allowed units of this host: state, why, last error')
    .option(...json)
    .action((options: { json?: true }) => units(surroundings, options));
  command('heal', 'start failed units, and watch that they stay up')
    .argument('[unit...]', 'UNIT or NODE:UNIT; default: all of this host that need it')
    .option(...actor)
    .option('--reason <text>', 'why, for the audit')
    .option('--json', 'print a JSON line for each event')
    .action(async (names: string[], options: HealOptions) => exitWith(await heal(surroundings, names, options)));

  const incident = command('incidents', 'what is wrong: open now by default');
  incident
    .command('list', { isDefault: true })
    .description('a line each, what needs a person first')
    .option('--class <class>', 'only of this class')
    .option('--severity <severity>', 'only critical, error or warning')
    .option('--node <node>', 'only at this node')
    .option('--queue <queue>', 'only of this queue')
    .option('--all', 'with those that are resolved')
    .option('--resolved', 'only those that are resolved')
    .option('--since <duration>', 'only what is open now, or was resolved within so long')
    .option('--limit <n>', 'so many at most', '100')
    .option('--watch', 'draw again every 2 s, until interrupted')
    .option(...json)
    .action((options: incidents.ListOptions) => incidents.listAll(surroundings, options));
  incident
    .command('show <id>')
    .description('one whole: evidence, timeline, what is being done, what would help')
    .option(...json)
    .action(async (id: string, options: { json?: true }) => exitWith(await incidents.show(surroundings, id, options)));
  incident
    .command('acknowledge <id>')
    .description('say that you have taken it on; it stays open until its condition is gone')
    .requiredOption('--reason <text>', 'why; 8 characters or more')
    .option(...actor)
    .option(...json)
    .action(async (id: string, options: { reason: string; actor: string; json?: true }) =>
      exitWith(await incidents.acknowledgeOne(surroundings, id, options)),
    );
  incident
    .command('snooze <id>')
    .description('move it out of the way for a time')
    .requiredOption('--for <duration>', 'such as 30m or 2h; 30 days at most')
    .requiredOption('--reason <text>', 'why; 8 characters or more')
    .option(...actor)
    .option(...json)
    .action(async (id: string, options: { reason: string; actor: string; for: string; json?: true }) =>
      exitWith(await incidents.snoozeOne(surroundings, id, options)),
    );

  const audits = command('audit', 'who did what, why, and with what outcome');
  audits
    .command('list', { isDefault: true })
    .description('the latest events, oldest first')
    .option('--actor <who>', "only this actor's")
    .option('--action <action>', 'only this action')
    .option('--target <target>', 'only about QUEUE/JOB-ID, an executor, NODE:UNIT, ...: as a target or as one of several')
    .option('--outcome <outcome>', 'only done, partial, failed, denied, drifted, expired or unknown')
    .option('--since <duration>', 'only of the last 30m, 7d, ...')
    .option('--limit <n>', 'so many at most', '100')
    .option('--follow', 'go on with what comes, a JSON line each, until interrupted')
    .option(...json)
    .action((options: audit.ListOptions) => audit.list(surroundings, options));
  audits
    .command('verify')
    .description('go through the whole chain: was anything changed, removed or inserted?')
    .option('--expect <head>', 'POSITION:HASH, as an earlier run printed it')
    .option('--archive', 'the part that is in the archive, too')
    .option(...json)
    .action(async (options: { expect?: string; archive?: true; json?: true }) => exitWith(await audit.verify(surroundings, options)));

  const retained = command('retention', 'what is kept, for how long, and what is due');
  retained
    .command('status', { isDefault: true })
    .description('each class: rows, size, oldest, due; the last run, and the next')
    .option(...json)
    .action((options: { json?: true }) => retention.showStatus(surroundings, options));
  retained
    .command('prune')
    .description('archive and remove now what is due')
    .requiredOption('--reason <text>', 'why; 8 characters or more')
    .option(...actor)
    .option(...json)
    .action(async (options: { reason: string; actor: string; json?: true }) => exitWith(await retention.prune(surroundings, options)));

  retained
    .command('restore <file>')
    .description('read a file of the archive back into the table `restored`, for an investigation')
    .option(...actor)
    .option(...json)
    .action(async (file: string, options: { actor: string; json?: true }) =>
      exitWith(await retention.restore(surroundings, file, options)),
    );

  const policy = command('policies', 'what happens to orphans, by queue');
  policy
    .command('list', { isDefault: true })
    .description('every rule, in the order of resolution')
    .option(...json)
    .action((options: { json?: true }) => policies.listAll(surroundings, options));
  policy
    .command('set <queue> <policy>')
    .description('QUEUE may hold `*`; POLICY is restart, fail, discard or hold')
    .option('--max-recoveries <n>', 'recoveries before the job is poison')
    .option('--poison <policy>', 'discard or hold what is poison')
    .option('--stale-after <duration>', 'for queues whose jobs beat: an attempt without activity for so long is an orphan')
    .option(...actor)
    .action(async (queue: string, name: string, options: { maxRecoveries?: string; poison?: string; staleAfter?: string; actor: string }) =>
      exitWith(await policies.set(surroundings, queue, name, options)),
    );
  policy
    .command('remove <queue>')
    .description('remove one rule from the table')
    .option(...actor)
    .action(async (queue: string, options: { actor: string }) => exitWith(await policies.remove(surroundings, queue, options)));
  return program;
}
