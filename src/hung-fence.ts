import { type ExecutorRegistry, listExecutorHealth } from './executors/health.ts';
import { importSessions } from './executors/queries.ts';
import { CUT_OFF_AFTER_SECONDS } from './fleet/beat.ts';
import { readFleetState } from './fleet/queries.ts';
import { listLives } from './healing/blame-queries.ts';
import type { Database } from './postgres/database.ts';
import { findHung, type Restraint, type Scope, type TimeoutBrakes } from './recovery/eligibility.ts';

export interface HungFenceDependencies {
  database: Database;
  registry: ExecutorRegistry;
  node: string;
  daemonId: string;
  scope: Scope;
  brakes: TimeoutBrakes;
  hungAfterSeconds: number;
}

/** One life of a unit. */
export interface HungLife {
  unit: string;
  invocation: string;
}

/** Which units of this node run workers that hang; nominates only. */
export function createHungFence({ database, registry, node, daemonId, scope, brakes, hungAfterSeconds }: HungFenceDependencies) {
  async function look(): Promise<{ lives: HungLife[]; restraints: Restraint[] }> {
    const executors = await listExecutorHealth(database);
    const fleet = await readFleetState(database, node, daemonId, CUT_OFF_AFTER_SECONDS);
    const { hung, restraints } = findHung(executors, fleet, scope, brakes, hungAfterSeconds);
    const own = hung.filter(({ witnessNode, unit }) => witnessNode === node && unit !== null).map(({ id }) => id);
    return { lives: own.length === 0 ? [] : await listLives(database, own), restraints };
  }

  /** Whether one hangs in that very life of the unit, by every sign that there is now. */
  async function isHung({ unit, invocation }: HungLife): Promise<boolean> {
    await registry.importExecutors(database);
    await importSessions(database);
    const { lives } = await look();
    return lives.some((life) => life.unit === unit && life.invocation === invocation);
  }

  return { look, isHung };
}

export type HungFence = ReturnType<typeof createHungFence>;
