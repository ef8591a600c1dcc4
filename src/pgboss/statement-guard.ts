import type { Database } from '../postgres/database.ts';

/** Our look at the schema's version before each; and how a pass that is broken off hands back what it has claimed, so that others may do it. */
const HARMLESS = /^SELECT version::int|SET\s+maintain_on\s*=\s*NULL/;

/** Between the statements of one long call of pg-boss's, where we have no say otherwise: what is asked there may call it off. */
export function createStatementGuard() {
  let ask: (() => Promise<void>) | undefined;
  return {
    /** The same database, its statements asked about while a call is guarded. */
    watch: (database: Database): Database => ({
      ...database,
      query: async (text, values) => {
        if (!HARMLESS.test(text)) await ask?.();
        return database.query(text, values);
      },
      transaction: async (work) => {
        await ask?.();
        return database.transaction(work);
      },
    }),
    /** One call at a time. @param mayGoOn rejects to call it off; `call` rejects with the same then. */
    during: async (mayGoOn: () => Promise<void>, call: () => Promise<void>): Promise<void> => {
      ask = mayGoOn;
      try {
        await call();
      } finally {
        ask = undefined;
      }
    },
  };
}

export type StatementGuard = ReturnType<typeof createStatementGuard>;
