/** What the journal knows of one life of a unit. Every read ends with its signal. */
export interface UnitJournal {
  /** The last lines of that life, of severity error where there are any, oldest first; empty where there are none or they may not be read. */
  readLastLines(unit: string, invocationId: string, count: number, signal: AbortSignal): Promise<string[]>;
  /** Whether somebody asked the service manager to stop that life; undefined where the journal cannot tell. */
  wasStopRequested(unit: string, invocationId: string, signal: AbortSignal): Promise<boolean | undefined>;
}
