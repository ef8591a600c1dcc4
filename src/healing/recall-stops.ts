import type { UnitJournal } from '../actions/unit-journal.ts';
import type { Database } from '../postgres/database.ts';
import { listStopped } from './queries.ts';

/** The journal, and where it cannot tell any more why a life ended, what it told before, and what this program itself has stopped. */
export function recallStops(journal: UnitJournal, database: Database, host: string): UnitJournal {
  return {
    readLastLines: journal.readLastLines,
    explainEnds: async (lives, signal) => {
      const ends = await journal.explainEnds(lives, signal);
      const untold = lives.filter((_, index) => ends[index]?.stopRequested === undefined);
      if (untold.length === 0) return ends;
      const stopped = await listStopped(database, host, untold).catch((): string[] => []);
      return ends.map((end, index) => {
        const isRecalled = end.stopRequested === undefined && stopped.includes(lives[index]?.invocationId ?? '');
        return isRecalled ? { stopRequested: true, startLimitHit: false } : end;
      });
    },
  };
}
