import type { Config, Problem } from '../config.ts';
import { loadConfig } from '../config.ts';
import { type Context, openContext } from '../context.ts';
import type { HealDependencies } from '../healing/heal.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLogger } from '../runtime/logger.ts';
import { oneLine } from './output.ts';
import { loadPolicyModule } from './policy-module.ts';
import { UsageError } from './usage-error.ts';

/** Exit codes, as DESIGN has them. */
export const EXIT = { done: 0, failed: 1, usage: 2, refused: 3 } as const;

/** What a command gets of the process it runs in. */
export interface Surroundings {
  env: Record<string, string | undefined>;
  out(text: string): void;
  /** Aborts on SIGINT or SIGTERM. */
  signal: AbortSignal;
}

/** Says no in one sentence, with the exit code of a refusal. */
export function refused({ out }: Pick<Surroundings, 'out'>, sentence: string, json?: true): number {
  out(json ? JSON.stringify({ done: false, message: sentence }) : oneLine(`refused: ${sentence}`));
  return EXIT.refused;
}

/** The configuration, or every problem of it at once. */
export function requireConfig(env: Surroundings['env']): Config {
  const loaded = loadConfig(env);
  if ('config' in loaded) return loaded.config;
  throw configurationError(loaded.problems.map(describeProblem));
}

export function describeProblem({ variable, given, allowed }: Problem): string {
  return `${variable}: given ${given ?? 'nothing'}; allowed: ${allowed}`;
}

export function configurationError(problems: readonly string[]): UsageError {
  const lines = problems.map((problem) => `  ${problem}`);
  return new UsageError(`the configuration has ${lines.length} ${lines.length === 1 ? 'problem' : 'problems'}:\n${lines.join('\n')}`);
}

/** Opens what commands need, runs one, and closes it. */
export async function withContext<T>(surroundings: Surroundings, run: (context: Context) => Promise<T>): Promise<T> {
  const config = requireConfig(surroundings.env);
  if (config.databaseUrl.startsWith('embedded:')) {
    throw new UsageError(
      'DATABASE_URL=embedded:DIR starts a Postgres of its own and is for `run` and `demo`; give a command DATABASE_URL_FILE=DIR/database-url instead',
    );
  }
  const context = openContext({
    config,
    databaseUrl: config.databaseUrl,
    role: 'cli',
    trustsDatabaseRole: true,
    clock: systemClock,
    log: createLogger('silent', config.node),
    resolvePolicy: await loadPolicyModule(config.policyModule),
  });
  try {
    return await run(context);
  } finally {
    await context.close();
  }
}

/** As withContext, for commands that need our schema in place and pg-boss readable. */
export function withReadyContext<T>(surroundings: Surroundings, run: (context: Context) => Promise<T>): Promise<T> {
  return withContext(surroundings, async (context) => {
    await context.checkSchema();
    return run(context);
  });
}

/** As withReadyContext, for commands that change jobs: pg-boss must be in a version that we may act on. */
export function withActingContext<T>(surroundings: Surroundings, run: (context: Context) => Promise<T>): Promise<T> {
  return withReadyContext(surroundings, async (context) => {
    const gate = await context.probePgBoss();
    if (gate.mode !== 'act') throw new UsageError(gate.detail);
    return run(context);
  });
}

/** As withReadyContext, for commands about the units of this host. */
export function withUnits<T>(
  surroundings: Surroundings,
  run: (context: Context, dependencies: HealDependencies) => Promise<T>,
): Promise<T> {
  return withReadyContext(surroundings, (context) => run(context, requireUnits(context)));
}

/** What healing on this host stands on. */
export function requireUnits(context: Context): HealDependencies {
  const dependencies = context.healDependencies();
  if (!dependencies) throw new UsageError('there is no systemd to be asked here: RECLAIMD_SYSTEMD=system insists on one');
  return dependencies;
}
