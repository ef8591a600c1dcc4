import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { matchesPattern } from '../runtime/pattern.ts';
import { completeUnitName } from '../runtime/unit-name.ts';
import { ACTIONS, type Action, type Decision, type Resource } from './action.ts';
import { JsonInvalid, type JsonNode, readJson } from './json.ts';

/** The actors file is missing, open to others, or not what it should be: nothing is granted until that is mended. */
export class ActorsFileInvalid extends Error {
  override readonly name = 'ActorsFileInvalid';
  constructor(path: string, what: string, cause?: unknown) {
    super(`actors file ${path}: ${what}`, { cause });
  }
}

/** Patterns, all with `*`; units as in RECLAIMD_UNITS, or `NODE:UNIT`. Without `queues` and `units` it holds everywhere; with either, only there. */
interface Permission {
  actions: readonly string[];
  queues: readonly string[] | undefined;
  units: readonly string[] | undefined;
}

export interface Actors {
  path: string;
  /** By pattern of the actor, or `group:NAME`. */
  permissions: ReadonlyMap<string, readonly Permission[]>;
  groups: ReadonlyMap<string, readonly string[]>;
}

const MOST_BYTES = 1_048_576;
const GROUP = 'group:';

/** @throws ActorsFileInvalid with the file's name and the place in it. */
export function readActorsFile(path: string): Actors {
  const text = readTrusted(path);
  try {
    return { path, ...readActors(readJson(text)) };
  } catch (error) {
    if (error instanceof JsonInvalid) throw new ActorsFileInvalid(path, error.message, error);
    throw error;
  }
}

/** Looked at through the open file, so that what was checked is what is read. */
function readTrusted(path: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    throw new ActorsFileInvalid(path, `cannot be read (${(error as NodeJS.ErrnoException).code})`, error);
  }
  try {
    const { mode, size } = fstatSync(descriptor);
    if ((mode & 0o170000) !== 0o100000) throw new ActorsFileInvalid(path, 'is not a regular file');
    if ((mode & 0o002) !== 0) throw new ActorsFileInvalid(path, 'anybody may write to it: take that right away (chmod o-w)');
    if (size > MOST_BYTES) throw new ActorsFileInvalid(path, `is larger than ${MOST_BYTES} bytes`);
    return readFileSync(descriptor, 'utf8');
  } finally {
    closeSync(descriptor);
  }
}

function readActors(root: JsonNode): Pick<Actors, 'permissions' | 'groups'> {
  const members = objectOf(root, ['actors', 'groups']);
  const groups = new Map<string, string[]>();
  for (const [name, node] of membersOf(members.get('groups'))) groups.set(name, namesOf(node));
  const actors = members.get('actors');
  if (!actors) throw new JsonInvalid(root, '`actors` is missing: an object with the permissions of each actor');
  const permissions = new Map<string, Permission[]>();
  for (const [name, node] of membersOf(actors)) {
    if (name === '') throw new JsonInvalid(node, 'an actor has a name');
    if (name.startsWith(GROUP) && !groups.has(name.slice(GROUP.length)))
      throw new JsonInvalid(node, `there is no group ${JSON.stringify(name.slice(GROUP.length))} in \`groups\``);
    permissions.set(name, arrayOf(node).map(readPermission));
  }
  return { groups, permissions };
}

function readPermission(node: JsonNode): Permission {
  const members = objectOf(node, ['actions', 'queues', 'units']);
  const actions = members.get('actions');
  if (!actions) throw new JsonInvalid(node, '`actions` is missing: a list such as ["job_*"]');
  for (const action of arrayOf(actions)) {
    const pattern = textOf(action);
    if (!ACTIONS.some((known) => matchesPattern(pattern, known)))
      throw new JsonInvalid(action, `there is no action ${JSON.stringify(pattern)}; there are ${ACTIONS.join(', ')}`);
  }
  const patterns = (name: string) => {
    const given = members.get(name);
    return given === undefined ? undefined : namesOf(given);
  };
  return { actions: namesOf(actions), queues: patterns('queues'), units: patterns('units')?.map(completeUnit) };
}

/** `NODE:UNIT` or `UNIT`, the unit as RECLAIMD_UNITS spells it. */
function completeUnit(pattern: string): string {
  const colon = pattern.indexOf(':');
  return `${pattern.slice(0, colon + 1)}${completeUnitName(pattern.slice(colon + 1))}`;
}

function objectOf(node: JsonNode, allowed: readonly string[]): Map<string, JsonNode> {
  if (!(node.value instanceof Map)) throw new JsonInvalid(node, `an object is expected, with ${allowed.join(', ')}`);
  for (const [key, value] of node.value)
    if (!allowed.includes(key)) throw new JsonInvalid(value, `${JSON.stringify(key)} is not known here; allowed: ${allowed.join(', ')}`);
  return node.value;
}

function membersOf(node: JsonNode | undefined): Map<string, JsonNode> {
  if (node === undefined) return new Map();
  if (!(node.value instanceof Map)) throw new JsonInvalid(node, 'an object is expected');
  return node.value;
}

function arrayOf(node: JsonNode): JsonNode[] {
  if (!Array.isArray(node.value)) throw new JsonInvalid(node, 'a list is expected');
  return node.value;
}

function textOf(node: JsonNode): string {
  if (typeof node.value !== 'string' || node.value === '') throw new JsonInvalid(node, 'a text is expected, not empty');
  return node.value;
}

const namesOf = (node: JsonNode): string[] => arrayOf(node).map(textOf);

/** Everything that any entry, or any group of the actor's, grants; nothing is taken away by another. */
export function permits(actors: Actors, actor: string, action: Action, resource: Resource): Decision {
  const granted = [...actors.permissions].filter(([name]) => isMeant(actors, name, actor)).flatMap(([, permissions]) => permissions);
  const elsewhere = granted.filter(({ actions }) => actions.some((pattern) => matchesPattern(pattern, action)));
  if (elsewhere.some((permission) => covers(permission, resource))) return { allowed: true };
  const what = `${actor} may not ${action} ${describe(resource)}`;
  if (granted.length === 0) return { allowed: false, sentence: `${what}: ${actors.path} gives this actor no right, only reading` };
  return {
    allowed: false,
    sentence: `${what}: ${actors.path} gives this actor ${elsewhere.length > 0 ? 'that right for other targets only' : 'other rights only'}`,
  };
}

/** Named in so many words, not just met by a pattern: whoever wrote the file vouches for that very name. */
export function isNamed(actors: Actors, actor: string): boolean {
  return actors.permissions.has(actor) || [...actors.groups.values()].some((members) => members.includes(actor));
}

function isMeant(actors: Actors, name: string, actor: string): boolean {
  if (!name.startsWith(GROUP)) return matchesPattern(name, actor);
  return (actors.groups.get(name.slice(GROUP.length)) ?? []).some((member) => matchesPattern(member, actor));
}

function covers({ queues, units }: Permission, resource: Resource): boolean {
  if (queues === undefined && units === undefined) return true;
  const someQueue = (queue: string) => queues?.some((pattern) => matchesPattern(pattern, queue)) === true;
  switch (resource.kind) {
    case 'queue':
      return someQueue(resource.name);
    case 'executor':
      // Of an executor without known queues nobody can say that they are all within.
      return resource.queues.length > 0 && resource.queues.every(someQueue);
    case 'unit':
      return (
        units?.some((pattern) => matchesPattern(pattern, pattern.includes(':') ? `${resource.node}:${resource.name}` : resource.name)) ===
        true
      );
    case 'fleet':
      return false;
  }
}

function describe(resource: Resource): string {
  switch (resource.kind) {
    case 'queue':
      return `in queue ${resource.name}`;
    case 'unit':
      return `on ${resource.node}:${resource.name}`;
    case 'executor':
      return `on executor ${resource.id} (queues: ${resource.queues.join(', ') || 'none known'})`;
    case 'fleet':
      return 'for the whole fleet';
  }
}
