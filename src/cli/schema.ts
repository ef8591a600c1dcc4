import { installOwnership, removeOwnership } from '../ownership/install.ts';
import { migrate } from '../postgres/migrate.ts';
import { type Surroundings, withContext, withReadyContext } from './command.ts';
import { grantStatements } from './grants.ts';
import { UsageError } from './usage-error.ts';

export async function runMigrate(surroundings: Surroundings): Promise<void> {
  await withContext(surroundings, async ({ database, config, checkSchema }) => {
    const applied = await migrate(database, config.schema);
    await checkSchema();
    surroundings.out(
      applied.length > 0 ? `schema "${config.schema}": applied ${applied.join(', ')}` : `schema "${config.schema}" is up to date`,
    );
  });
}

export async function runInstallOwnership(surroundings: Surroundings): Promise<void> {
  await withReadyContext(surroundings, async ({ database, config, pgbossSchema, probePgBoss }) => {
    const gate = await probePgBoss();
    if (gate.mode === 'wait')
      throw new UsageError(`pg-boss is not installed in schema "${pgbossSchema}" yet: start a worker once, then run this again`);
    const { installed, present } = await installOwnership(database, { schema: config.schema, pgbossSchema });
    const count = installed.length + present.length;
    surroundings.out(`ownership is recorded on ${count} job ${count === 1 ? 'table' : 'tables'} (${installed.length} new)`);
  });
}

export async function runRemoveOwnership(surroundings: Surroundings): Promise<void> {
  await withReadyContext(surroundings, async ({ database, config, pgbossSchema }) => {
    await removeOwnership(database, { schema: config.schema, pgbossSchema });
    surroundings.out('ownership is no longer recorded; without it reclaimd can only observe');
  });
}

export async function runGrants(surroundings: Surroundings, options: { role: string }): Promise<void> {
  await withReadyContext(surroundings, async ({ config, pgbossSchema }) => {
    surroundings.out(grantStatements({ role: options.role, schema: config.schema, pgbossSchema }));
  });
}
