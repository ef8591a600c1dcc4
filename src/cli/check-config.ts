import { describeConfig } from '../config.ts';
import { requireConfig, type Surroundings } from './command.ts';
import { printJson, table } from './output.ts';

/** What is in force, secrets masked; requireConfig says every problem at once. */
export async function checkConfig(surroundings: Surroundings, options: { json?: true }): Promise<void> {
  const rows = describeConfig(requireConfig(surroundings.env));
  if (options.json) printJson(surroundings, Object.fromEntries(rows.map(({ variable, value }) => [variable, value])));
  else
    surroundings.out(
      table(
        ['VARIABLE', 'IN FORCE'],
        rows.map(({ variable, value }) => [variable, value]),
      ),
    );
}
