import type { Database } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import { EXECUTOR_KEPT_SECONDS, type ExecutorRegistry } from './health.ts';
import {
  countIdleSessions,
  countNameSharers,
  dropSighting,
  dropWitness,
  type LocalExecutorRow,
  listLocalExecutors,
  saveDeath,
  saveSighting,
  saveWitness,
} from './queries.ts';
import { judgeSighting } from './sighting.ts';
import { type Proof, WITNESS_FRESH_SECONDS } from './verdict.ts';

/** A process of this host in sight; see host/process.ts. */
export interface ProcessHandle {
  pid: number;
  startTicks: number;
  ageSeconds: number;
  ofMachine: boolean;
  isGone(): boolean;
  close(): void;
}

/** The processes of this host, as far as adoption needs them. */
export interface ProcessTable {
  /** Undefined where there is no Linux /proc, or its processes are not to be looked at: then nothing is adopted. */
  bootId: string | undefined;
  pidNamespace: string | undefined;
  secondsSinceBoot(): number;
  /** `unknown`: it cannot be told whether there is such a process. */
  open(pid: number): ProcessHandle | 'gone' | 'unknown';
  isPidAmbiguous(pid: number): boolean | 'unknown';
}

export interface AdoptionDependencies {
  database: Database;
  registry: ExecutorRegistry;
  processes: ProcessTable;
  clock: Clock;
  log: Logger;
  host: string;
  node: string;
  daemonId: string;
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

interface Adopted {
  handle: ProcessHandle;
  applicationName: string | null;
  seenAliveAt: number;
}

/** Keeps the executors of this host in sight, and turns a process that is gone into a recorded death. */
export function createAdoption(dependencies: AdoptionDependencies) {
  const { database, registry, processes, clock, log, host, node, daemonId } = dependencies;
  const adopted = new Map<string, Adopted>();
  /** Executors that cannot be tied to a process: looked at once, then left to their beats for as long as these come. */
  const unverifiable = new Set<string>();
  /** Executors of which nothing could be seen, for whatever hinders us. */
  const doubted = new Set<string>();
  /** Since when sessions have outlived the process of an executor. */
  const contradictedSince = new Map<string, number>();

  function release(id: string): void {
    adopted.get(id)?.handle.close();
    contradictedSince.delete(id);
    if (adopted.delete(id)) dependencies.onReleased?.(id);
  }

  /** Finds new executors, and the end of those adopted in an earlier life of this daemon. */
  async function adopt(): Promise<void> {
    const bootId = processes.bootId;
    if (bootId === undefined) return;
    await registry.importExecutors(database, host);
    const rows = await listLocalExecutors(database, {
      host,
      daemonId,
      witnessFreshSeconds: WITNESS_FRESH_SECONDS,
      keptSeconds: EXECUTOR_KEPT_SECONDS,
    });
    const present = new Set(rows.map((row) => row.id));
    for (const id of [...adopted.keys()]) if (!present.has(id)) release(id);
    for (const known of [unverifiable, doubted, contradictedSince]) for (const id of known.keys()) if (!present.has(id)) known.delete(id);
    for (const row of rows) {
      const held = adopted.get(row.id);
      if (held && !row.witnessed) await bearWitness(row.id, held.handle, bootId);
      else if (!held && !(row.beatFresh && unverifiable.has(row.id))) await adoptOne(row, bootId);
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
    const found = processes.open(row.pid);
    if (sighting === 'here') {
      if (typeof found === 'object' && String(found.startTicks) === row.witnessStartTicks) return hold(row, found, bootId);
      if (typeof found === 'object') found.close();
      return found === 'unknown' ? doubt(row.id, 'whether its process is there cannot be seen') : judgeLost(row);
    }
    if (found === 'unknown') return undefined;
    if (found === 'gone') return loseSight(row);
    const misfit = findMisfit(row, found);
    const ambiguous = misfit === undefined && processes.isPidAmbiguous(row.pid);
    if (misfit === undefined && ambiguous === false && row.beatFresh) return hold(row, found, bootId);
    found.close();
    // Who was seen elsewhere is not of this boot, or of this pid namespace.
    if (misfit !== undefined || (sighting !== 'none' && !row.beatFresh)) await loseSight(row);
    // Where its end could not be told, it would be there for ever.
    else if (ambiguous !== 'unknown') await keepInSight(row);
    if (!row.beatFresh) return;
    if (misfit !== undefined) distrust(row, misfit);
    else if (ambiguous === true) distrust(row, 'the pid is carried by several processes of this host');
    else doubt(row.id, 'not every process of this host can be seen (hidepid on /proc, or no descriptors left)');
  }

  /** Why a process cannot be the one that registered. */
  function findMisfit(row: LocalExecutorRow, found: ProcessHandle): string | undefined {
    if (found.ageSeconds < row.ageSeconds - AGE_SLACK_SECONDS)
      return 'the pid belongs to a younger process (recycled, or of another pid namespace)';
    if (found.ofMachine) return "the pid belongs to the kernel or the machine's init (the executor's is of another pid namespace)";
    return undefined;
  }

  /**
   * Not adopted, and a process that fits is there. It may be another's, if the executor is of another pid namespace, so its end will prove
   * nothing. But a worker that hangs is no less alive for that, so until then its silence takes nothing.
   */
  async function keepInSight(row: LocalExecutorRow): Promise<void> {
    if (!row.sighted) await saveSighting(database, row.id, daemonId);
  }

  async function loseSight(row: LocalExecutorRow): Promise<void> {
    if (row.sightedHere) await dropSighting(database, row.id, daemonId);
  }

  /** Seen before on this boot, and nobody holds it now: the process is not there any more. */
  async function judgeLost(row: LocalExecutorRow): Promise<void> {
    // Another daemon of this host has it in sight, and knows better when it was last alive.
    if (row.witnessed && row.witnessNode !== node) return;
    // It was not in our sight when it ended: as long as its beats may yet come, our eyes may be what is wrong.
    if (row.beatFresh) return;
    await confirmDeath(row.id, row.applicationName, null);
  }

  /** The process of that pid is not the one that registered, or may not be. */
  function distrust({ id, pid }: LocalExecutorRow, why: string): void {
    unverifiable.add(id);
    log.warn({ executor: id, pid }, `${why}: not adopted, its end will prove nothing`);
  }

  /** What cannot be seen now may be seen later: looked at again each time, told once. */
  function doubt(id: string, why: string): void {
    if (doubted.has(id)) return;
    doubted.add(id);
    log.warn({ executor: id }, `${why}: judged by its beats until it can`);
  }

  async function hold(row: LocalExecutorRow, handle: ProcessHandle, bootId: string): Promise<void> {
    // Another daemon of this host may hold it already; one witness is enough.
    if (!row.witnessed && !(await bearWitness(row.id, handle, bootId))) {
      handle.close();
      return;
    }
    adopted.set(row.id, { handle, applicationName: row.applicationName, seenAliveAt: clock.now() });
    doubted.delete(row.id);
    log.info({ executor: row.id, pid: row.pid }, 'adopted');
    dependencies.onAdopted?.(row.id, row.pid);
  }

  function bearWitness(id: string, handle: ProcessHandle, bootId: string): Promise<boolean> {
    const { stack, env } = dependencies;
    return saveWitness(database, id, {
      node,
      daemonId,
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
    await Promise.all(
      gone.map(([id, { applicationName, seenAliveAt }]) => confirmDeath(id, applicationName, (clock.now() - seenAliveAt) / 1000)),
    );
  }

  /** While sessions contradict it the next look decides: nobody's death is held up by another's. */
  async function confirmDeath(id: string, applicationName: string | null, aliveSecondsAgo: number | null): Promise<void> {
    if (await isContradicted(applicationName)) {
      const since = contradictedSince.get(id) ?? clock.now();
      contradictedSince.set(id, since);
      if (clock.now() - since > SESSION_PATIENCE_MS) await giveUp(id, 'its process is gone, but its sessions live');
      return;
    }
    await declareDead(id, 'process_gone', aliveSecondsAgo);
    release(id);
  }

  /**
   * The last guard against having held the wrong process: sessions that outlive it. Speaks only when the name is one
   * executor's alone; a shared name's sessions may be the others'.
   */
  async function isContradicted(applicationName: string | null): Promise<boolean> {
    if (!applicationName || (await countIdleSessions(database, applicationName)) === 0) return false;
    return (await countNameSharers(database, applicationName)) <= 1;
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
