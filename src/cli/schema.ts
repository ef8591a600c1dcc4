import { installOwnership, removeOwnership } from '../ownership/install.ts';
import type { GateState } from '../pgboss/gate.ts';
import { migrate } from '../postgres/migrate.ts';
import { EXIT, refused, type Surroundings, withContext, withReadyContext } from './command.ts';
import { grantStatements } from './grants.ts';
import { auditWish, whyDenied } from './rights.ts';
import { UsageError } from './usage-error.ts';

const FLEET = { resource: { kind: 'fleet' }, target: 'fleet' } as const;

export async function runMigrate(surroundings: Surroundings): Promise<void> {
  await withContext(surroundings, async ({ database, config, checkSchema }) => {
    const applied = await migrate(database, config.schema);
    await checkSchema();
    surroundings.out(
      applied.length > 0 ? `schema "${config.schema}": applied ${applied.join(', ')}` : `schema "${config.schema}" is up to date`,
    );
  });
}

export async function runInstallOwnership(surroundings: Surroundings, { actor }: { actor: string }): Promise<number> {
  return withReadyContext(surroundings, async (context) => {
    const { database, config, pgbossSchema, probePgBoss } = context;
    const wish = { ...FLEET, actor, action: 'ownership_install' } as const;
    const denial = await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial);
    requireInstalled(await probePgBoss(), pgbossSchema);
    const target = { schema: config.schema, pgbossSchema };
    const { installed, present } = await installOwnership(database, target, (tx, tables) => auditWish(tx, context, wish, { tables }));
    const count = installed.length + present.length;
    surroundings.out(`ownership is recorded on ${count} job ${count === 1 ? 'table' : 'tables'} (${installed.length} new)`);
    return EXIT.done;
  });
}

function requireInstalled({ mode }: GateState, pgbossSchema: string): void {
  if (mode === 'wait')
    throw new UsageError(`pg-boss is not installed in schema "${pgbossSchema}" yet: start a worker once, then run this again`);
}

export async function runRemoveOwnership(surroundings: Surroundings, { actor }: { actor: string }): Promise<number> {
  return withReadyContext(surroundings, async (context) => {
    const { database, config, pgbossSchema } = context;
    const wish = { ...FLEET, actor, action: 'ownership_remove' } as const;
    const denial = await whyDenied(context, wish);
    if (denial !== undefined) return refused(surroundings, denial);
    const target = { schema: config.schema, pgbossSchema };
    await removeOwnership(database, target, (tx, tables) => auditWish(tx, context, wish, { tables }));
    surroundings.out('ownership is no longer recorded; without it reclaimd can only observe');
    return EXIT.done;
  });
}

export async function runGrants(surroundings: Surroundings, options: { role: string }): Promise<void> {
  await withReadyContext(surroundings, async ({ config, database, pgbossSchema, probePgBoss }) => {
    requireInstalled(await probePgBoss(), pgbossSchema);
    const { schema, pgbossSupervise: supervise } = config;
    surroundings.out(await grantStatements(database, { role: options.role, schema, pgbossSchema, supervise }));
  });
}
