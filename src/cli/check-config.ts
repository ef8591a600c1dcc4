import { stat } from 'node:fs/promises';
import { readActorsFile } from '../authorization/actors-file.ts';
import { type Config, describeConfig, loadConfig } from '../config.ts';
import { findRelease } from '../pgboss/release.ts';
import { configurationError, describeProblem, type Surroundings } from './command.ts';
import { printJson, table } from './output.ts';
import { loadPolicyModule } from './policy-module.ts';

/** What is in force, secrets masked; or every problem at once, those of what the variables point at among them. */
export async function checkConfig(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  const loaded = loadConfig(surroundings.env);
  const misread = 'config' in loaded ? [] : loaded.problems.map(describeProblem);
  const unusable = await findUnusable('config' in loaded ? loaded.config : loaded.readable);
  if (!('config' in loaded) || unusable.length > 0) throw configurationError([...misread, ...unusable]);
  const rows = describeConfig(loaded.config);
  if (options.json) printJson(surroundings, Object.fromEntries(rows.map(({ variable, value }) => [variable, value])));
  else
    surroundings.out(
      table(
        ['VARIABLE', 'IN FORCE'],
        rows.map(({ variable, value }) => [variable, value]),
      ),
    );
}

/** The files and directories that are named, but cannot serve. */
async function findUnusable({ pgbossModule, policyModule, actorsFile, archiveDirectory }: Partial<Config>): Promise<string[]> {
  const looks: [variable: string, look: () => Promise<unknown>][] = [
    ['RECLAIMD_PGBOSS_MODULE: ', async () => findRelease(pgbossModule)],
    // Names its variable itself.
    ['', () => loadPolicyModule(policyModule)],
    ['RECLAIMD_ACTORS_FILE: ', async () => actorsFile !== undefined && readActorsFile(actorsFile)],
    ['RECLAIMD_ARCHIVE_DIR: ', async () => archiveDirectory !== undefined && assertDirectory(archiveDirectory)],
  ];
  const problems: string[] = [];
  for (const [variable, look] of looks)
    await look().catch((error: unknown) => problems.push(`${variable}${error instanceof Error ? error.message : String(error)}`));
  return problems;
}

/** That the daemon may write there is its user's to try: see `reclaimd doctor`. */
async function assertDirectory(path: string): Promise<void> {
  const found = await stat(path);
  if (!found.isDirectory()) throw new Error(`${path} is no directory`);
}
