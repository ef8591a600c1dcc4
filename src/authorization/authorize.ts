import type { Action, Decision, Resource } from './action.ts';
import { type Actors, ActorsFileInvalid, isNamed, permits, readActorsFile } from './actors-file.ts';

/** The host's own answer; `false` is a denial without words, and so is an error. */
export type HostAuthorize = (actor: string, action: Action, resource: Resource) => boolean | Decision | Promise<boolean | Decision>;

/** @throws ActorsFileInvalid: a file that cannot be trusted grants nothing, and says where it is wrong. */
export type Authorize = (actor: string, action: Action, resource: Resource) => Promise<Decision>;

export interface AuthorizationSources {
  /** The host's function: asked instead of any file. */
  authorize?: HostAuthorize | undefined;
  /** Read at the first question. */
  actorsFile?: string | undefined;
  /** With neither of them: whether the privileges of the database's role are limit enough. Else nobody may change anything. */
  trustsDatabaseRole: boolean;
}

/** What provisioning runs as well: a shared account may ask for it. All the rest is a person's decision, and wants a person's name. */
const IMPERSONAL: ReadonlySet<Action> = new Set(['ownership_install']);

/** Accounts that several people use: their name says where, not who. */
const SHARED_ACCOUNTS: ReadonlySet<string> = new Set([
  'root',
  'reclaimd',
  'postgres',
  'nobody',
  'daemon',
  'node',
  'admin',
  'ubuntu',
  'ec2-user',
]);

const LONGEST_ACTOR = 200;
const NO_RULES = 'nothing says who may change anything: give `openContext` an `authorize` function, or RECLAIMD_ACTORS_FILE';

export function createAuthorizer({ authorize, actorsFile, trustsDatabaseRole }: AuthorizationSources): Authorize {
  let actors: Actors | undefined;
  const ask: HostAuthorize = (actor, action, resource) => {
    if (authorize) return authorize(actor, action, resource);
    if (actorsFile === undefined) return trustsDatabaseRole ? true : { allowed: false, sentence: NO_RULES };
    actors ??= readActorsFile(actorsFile);
    return permits(actors, actor, action, resource);
  };
  return async (actor, action, resource) => {
    const nameless = whyNobody(actor);
    if (nameless) return { allowed: false, sentence: nameless };
    const decision = await askSafely(ask, actor, action, resource);
    if (!decision.allowed) return decision;
    if (IMPERSONAL.has(action) || authorize || !isShared(actor) || (actors && isNamed(actors, actor))) return decision;
    return {
      allowed: false,
      sentence: `${actor} is an account that several people share: say who you are with --actor NAME@HOST`,
    };
  };
}

/** A host's function that fails or answers nonsense has allowed nothing. */
async function askSafely(ask: HostAuthorize, ...[actor, action, resource]: Parameters<HostAuthorize>): Promise<Decision> {
  try {
    const answer = await ask(actor, action, resource);
    if (answer === true || (typeof answer === 'object' && answer?.allowed === true)) return { allowed: true };
    if (typeof answer === 'object' && answer?.allowed === false && typeof answer.sentence === 'string') return answer;
    return { allowed: false, sentence: `${actor} may not ${action} here` };
  } catch (error) {
    if (error instanceof ActorsFileInvalid) throw error;
    return {
      allowed: false,
      sentence: `whether ${actor} may ${action} could not be found out: ${error instanceof Error ? error.message : String(error)}`,
    };
  }
}

function whyNobody(actor: string): string | undefined {
  if (nameOf(actor) === '') return 'nobody is named: say who you are with --actor NAME@HOST';
  if (actor.length > LONGEST_ACTOR || actor !== actor.trim() || INVISIBLE.test(actor))
    return `an actor's name has at most ${LONGEST_ACTOR} characters, on one line, none of them invisible, and no space around it`;
  if (actor.includes('@') && nameOf(actor) === 'reclaimd')
    return `${actor} is the daemon's own name: say who you are with --actor NAME@HOST`;
  return undefined;
}

const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;
/** Who it is, however it is written: `Root @ops-1` is no other account. */
const nameOf = (actor: string): string => (actor.split('@')[0] ?? '').normalize('NFKC').trim().toLowerCase();
const isShared = (actor: string): boolean => SHARED_ACCOUNTS.has(nameOf(actor));
