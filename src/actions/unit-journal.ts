/** Why a life of a unit ended, as the service manager wrote it down; undefined where the journal cannot tell. */
export interface LifeEnd {
  /** Somebody (a person, a deploy, a dependency) asked for the stop, and nobody for a start since; a restart asks for both. */
  stopRequested: boolean | undefined;
  /** systemd wanted to start it again and its own start limit kept it from that. */
  startLimitHit: boolean | undefined;
  /** How the last try to start it ended, where that came to no new life: `failed`, `dependency`, `timeout`, ... */
  startFailed?: string | undefined;
  /** The life that is told of, where it was asked for by the unit's name. */
  invocationId?: string | undefined;
  /** The journal has not answered in time: it may know, and is asked again. */
  overdue?: true;
}

/** What the journal knows of one life of a unit. Every read ends with its signal. */
export interface UnitJournal {
  /** The last lines that look like errors, else the last lines, oldest first; empty where there are none or they may not be read. */
  readLastLines(invocationId: string, count: number, signal: AbortSignal): Promise<string[]>;
  /** Of each life, in the order given; with an empty id, of the unit's last one since boot: systemd forgets the ids of units that it unloads. */
  explainEnds(lives: readonly { unit: string; invocationId: string }[], signal: AbortSignal): Promise<LifeEnd[]>;
}
