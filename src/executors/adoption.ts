import type { Database } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import type { ExecutorRegistry } from './health.ts';
import {
  countIdleSessions,
  countNameSharers,
  dropWitness,
  type LocalExecutorRow,
  listLocalExecutors,
  saveDeath,
  saveWitness,
} from './queries.ts';
import { judgeSighting } from './sighting.ts';
import { type Proof, WITNESS_FRESH_SECONDS } from './verdict.ts';

/** A process of this host in sight; see host/process.ts. */
export interface ProcessHandle {
  pid: number;
  startTicks: number;
  ageSeconds: number;
  isGone(): boolean;
  close(): void;
}

/** The processes of this host, as far as adoption needs them. */
export interface ProcessTable {
  /** Undefined where there is no Linux /proc: then nothing is adopted. */
  bootId: string | undefined;
  pidNamespace: string | undefined;
  secondsSinceBoot(): number;
  open(pid: number): ProcessHandle | undefined;
  isPidAmbiguous(pid: number): boolean;
}

export interface AdoptionDependencies {
  database: Database;
  registry: ExecutorRegistry;
  processes: ProcessTable;
  clock: Clock;
  log: Logger;
  host: string;
  node: string;
  stack: string | null;
  env: string | null;
  /** Told of each death that was proven and recorded. */
  onDeath(executorId: string, proof: Proof): void;
  /** Told of each process that is held in sight from now on. */
  onAdopted?(executorId: string, pid: number): void;
  /** Told when it is let go, whatever became of it; after `onDeath` where it died. */
  onReleased?(executorId: string): void;
}

/** The registration may carry a slightly older time than the process by rounding of both clocks' ticks. */
const AGE_SLACK_SECONDS = 2;
/** A dead process's sessions end as its sockets do; sessions that stay idle longer belong to somebody alive. */
const SESSION_PATIENCE_MS = 1_000;
const SESSION_RECHECK_MS = 50;

interface Adopted {
  handle: ProcessHandle;
  applicationName: string | null;
  seenAliveAt: number;
}

/** Keeps the executors of this host in sight, and turns a process that is gone into a recorded death. */
export function createAdoption(dependencies: AdoptionDependencies) {
  const { database, registry, processes, clock, log, host, node } = dependencies;
  const adopted = new Map<string, Adopted>();
  /** Executors that cannot be tied to a process: looked at once, then left to their beats. */
  const unverifiable = new Set<string>();

  function release(id: string): void {
    adopted.get(id)?.handle.close();
    if (adopted.delete(id)) dependencies.onReleased?.(id);
  }

  /** Finds new executors, and the end of those adopted in an earlier life of this daemon. */
  async function adopt(): Promise<void> {
    const bootId = processes.bootId;
    if (bootId === undefined) return;
    await registry.importExecutors(database, host);
    const rows = await listLocalExecutors(database, host, WITNESS_FRESH_SECONDS);
    const present = new Set(rows.map((row) => row.id));
    for (const id of [...adopted.keys()]) if (!present.has(id)) release(id);
    for (const id of unverifiable) if (!present.has(id)) unverifiable.delete(id);
    for (const row of rows) {
      const held = adopted.get(row.id);
      if (held && !row.witnessed) await bearWitness(row.id, held.handle, bootId);
      else if (!held && !unverifiable.has(row.id)) await adoptOne(row, bootId);
    }
  }

  async function adoptOne(row: LocalExecutorRow, bootId: string): Promise<void> {
    const sighting = judgeSighting(row, {
      node,
      bootId,
      pidNamespace: processes.pidNamespace,
      uptimeSeconds: processes.secondsSinceBoot(),
    });
    if (sighting === 'rebooted') return declareDead(row.id, 'host_rebooted', null);
    if (sighting === 'elsewhere' && row.witnessed) return undefined;
    const handle = processes.open(row.pid);
    if (sighting === 'here') {
      if (handle && String(handle.startTicks) === row.witnessStartTicks) return hold(row, handle, bootId);
      handle?.close();
      // Another daemon of this host has it in sight, and knows better when it was last alive.
      if (row.witnessed && row.witnessNode !== node) return undefined;
      if (await isContradicted(row.applicationName)) return giveUp(row.id, 'its process is gone, but its sessions live');
      return declareDead(row.id, 'process_gone', null);
    }
    if (!handle) return undefined;
    const doubt = row.beatFresh ? doubtOf(row, handle) : 'beats are not fresh';
    if (doubt === undefined) return hold(row, handle, bootId);
    handle.close();
    if (!row.beatFresh) return undefined;
    unverifiable.add(row.id);
    log.warn({ executor: row.id, pid: row.pid }, `${doubt}: not adopted, judged by its beats alone`);
  }

  /** Why the process of that pid may not be the one that registered. */
  function doubtOf(row: LocalExecutorRow, handle: ProcessHandle): string | undefined {
    if (handle.ageSeconds < row.ageSeconds - AGE_SLACK_SECONDS)
      return 'the pid belongs to a younger process (recycled, or of another pid namespace)';
    return processes.isPidAmbiguous(row.pid) ? 'the pid is carried by several processes of this host' : undefined;
  }

  async function hold(row: LocalExecutorRow, handle: ProcessHandle, bootId: string): Promise<void> {
    // Another daemon of this host may hold it already; one witness is enough.
    if (!row.witnessed && !(await bearWitness(row.id, handle, bootId))) {
      handle.close();
      return;
    }
    adopted.set(row.id, { handle, applicationName: row.applicationName, seenAliveAt: clock.now() });
    log.info({ executor: row.id, pid: row.pid }, 'adopted');
    dependencies.onAdopted?.(row.id, row.pid);
  }

  function bearWitness(id: string, handle: ProcessHandle, bootId: string): Promise<boolean> {
    const { stack, env } = dependencies;
    return saveWitness(database, id, {
      node,
      bootId,
      pidNamespace: processes.pidNamespace ?? '',
      startTicks: handle.startTicks,
      stack,
      env,
    });
  }

  /** Looks at every adopted process: a read each, no statement unless one is gone. */
  async function watch(): Promise<void> {
    const gone: [string, Adopted][] = [];
    for (const entry of adopted) {
      if (entry[1].handle.isGone()) gone.push(entry);
      else entry[1].seenAliveAt = clock.now();
    }
    await Promise.all(gone.map(([id, executor]) => confirmDeath(id, executor)));
  }

  async function confirmDeath(id: string, { applicationName, seenAliveAt }: Adopted): Promise<void> {
    if (await isContradicted(applicationName)) {
      await giveUp(id, 'its process is gone, but its sessions live');
      return;
    }
    await declareDead(id, 'process_gone', (clock.now() - seenAliveAt) / 1000);
    release(id);
  }

  /**
   * The last guard against having held the wrong process: sessions that outlive it. Speaks only when the name is one
   * executor's alone; a shared name's sessions may be the others'.
   */
  async function isContradicted(applicationName: string | null): Promise<boolean> {
    if (!applicationName) return false;
    const deadline = clock.now() + SESSION_PATIENCE_MS;
    while ((await countIdleSessions(database, applicationName)) > 0) {
      if ((await countNameSharers(database, applicationName)) > 1) return false;
      if (clock.now() > deadline) return true;
      await clock.sleep(SESSION_RECHECK_MS);
    }
    return false;
  }

  async function giveUp(id: string, why: string): Promise<void> {
    await dropWitness(database, id);
    release(id);
    unverifiable.add(id);
    log.warn({ executor: id }, `${why}: not taken for dead`);
  }

  async function declareDead(id: string, proof: Proof, aliveSecondsAgo: number | null): Promise<void> {
    // A graceful stop is written by the executor itself just before it exits: read it first.
    await registry.importExecutors(database, host);
    const recorded = await database.transaction(async (tx) => {
      if (!(await saveDeath(tx, id, proof, aliveSecondsAgo))) return false;
      await tx.query(`SELECT pg_notify(current_schema() || '_death', $1)`, [id]);
      return true;
    });
    if (!recorded) return;
    log.info({ executor: id, proof }, 'executor is dead');
    dependencies.onDeath(id, proof);
  }

  return { adopt, watch, size: () => adopted.size, close: () => [...adopted.keys()].forEach(release) };
}
