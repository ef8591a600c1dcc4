/** One systemd unit as its manager sees it now. Times are the host's, in milliseconds since 1970; 0 where there is none. */
export interface UnitStatus {
  unit: string;
  /** Its own name, and its aliases. */
  names: readonly string[];
  loadState: string;
  activeState: string;
  subState: string;
  /** `enabled`, `static`, `masked`, ...; empty where there is no unit file. */
  unitFileState: string;
  /** `success`, `exit-code`, `signal`, `core-dump`, `oom-kill`, `watchdog`, `timeout`, `start-limit-hit`, ... */
  result: string;
  /** How the main process ended: `exited`, `killed`, `dumped`; undefined while it runs or before it ever ran. */
  exitCode: string | undefined;
  /** Its exit status, or the number of the signal. */
  exitStatus: number;
  restarts: number;
  invocationId: string;
  mainPid: number;
  controlGroup: string;
  activeEnteredAt: number;
  inactiveEnteredAt: number;
  /** Units that start this one: a timer, a socket. */
  triggeredBy: readonly string[];
  /** Units that must not run beside it, whichever of the two says so. */
  conflicts: readonly string[];
  /** Units without which it may not be started. */
  requisite: readonly string[];
  /** Units that systemd would start with it. */
  requires: readonly string[];
  /** What kept its last start from being made, as its file has it: `ConditionPathExists=/run/ready`. */
  unmetConditions: readonly string[];
  /** What systemd is at with the unit, or will be once others are done: `start`, `stop`, `restart`, ...; null where nothing is. */
  job: string | null;
  /** Made by a call (`systemd-run`), without a file: systemd forgets it once it is down and has not failed. */
  transient: boolean;
  /** What systemd does when the unit meets its start limit: `none`, `reboot`, ... */
  startLimitAction: string;
  /** A job was seen to stop its last life; false where none was, or nobody was looking. */
  stopSeen: boolean;
}

export type JobResult = 'done' | 'canceled' | 'timeout' | 'failed' | 'dependency' | 'skipped' | string;

export type UnitChange =
  /** The unit runs, has gone or has other properties than before; not that one was loaded that never ran. */
  | { kind: 'changed'; unit: string; status: UnitStatus | undefined }
  /** The bus came back: what was heard before may be outdated. */
  | { kind: 'reconnected' };

/** The service manager of this host, as far as healing and proof of death need it. Every call ends within its time-out. */
export interface UnitManager {
  /** Units of those names or shell patterns, in any of the states (all of them where none is given). Throws where it cannot know. */
  list(patterns: readonly string[], states?: readonly string[]): Promise<UnitStatus[]>;
  /** Undefined where no such unit is known. */
  read(unit: string): Promise<UnitStatus | undefined>;
  resetFailed(unit: string): Promise<void>;
  /** Waits for the job to end; its result, not yet a healthy unit. Each is about that unit alone: what it requires is not started, what requires it not stopped. */
  start(unit: string): Promise<JobResult>;
  restart(unit: string): Promise<JobResult>;
  stop(unit: string): Promise<JobResult>;
  /** The processes in the unit's control group, and in those below it. */
  listProcesses(unit: string): Promise<number[]>;
  /** Tells of changes to the units that are wanted, until the function it returns is called. */
  watch(wants: (unit: string) => boolean, onChange: (change: UnitChange) => void): () => void;
  readonly state: 'connected' | 'connecting' | 'unavailable';
}
