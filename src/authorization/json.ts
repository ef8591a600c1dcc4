/** A value with the place where it begins, so that what is wrong with it can be pointed at. */
export interface JsonNode {
  line: number;
  column: number;
  value: null | boolean | number | string | JsonNode[] | Map<string, JsonNode>;
}

/** `line L, column C: what is wrong`. */
export class JsonInvalid extends Error {
  override readonly name = 'JsonInvalid';
  constructor(place: { line: number; column: number }, what: string) {
    super(`line ${place.line}, column ${place.column}: ${what}`);
  }
}

const WORDS = { true: true, false: false, null: null } as const;
const DEEPEST = 32;

/**
 * JSON as RFC 8259 has it, with two things that JSON.parse lacks: every value knows its place, and a key that is given
 * twice is an error (JSON.parse lets the last one win, in silence).
 */
export function readJson(text: string): JsonNode {
  let at = 0;
  const node = readValue(0);
  skipSpace();
  if (at < text.length) fail('nothing may follow the value');
  return node;

  function readValue(depth: number): JsonNode {
    skipSpace();
    if (depth > DEEPEST) fail(`nested deeper than ${DEEPEST}`);
    const place = placeOf(at);
    const next = text[at];
    if (next === '{') return { ...place, value: readObject(depth) };
    if (next === '[') return { ...place, value: readArray(depth) };
    if (next === '"') return { ...place, value: readString() };
    const [scalar] = /^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.+-])/.exec(text.slice(at, at + 64)) ?? [];
    if (scalar === undefined) fail(next === undefined ? 'the text ends too early' : 'a value is expected');
    at += scalar.length;
    return { ...place, value: Object.hasOwn(WORDS, scalar) ? WORDS[scalar as keyof typeof WORDS] : Number(scalar) };
  }

  function readObject(depth: number): Map<string, JsonNode> {
    const members = new Map<string, JsonNode>();
    at += 1;
    if (take('}')) return members;
    do {
      skipSpace();
      if (text[at] !== '"') fail('a key in double quotes is expected');
      const keyAt = at;
      const key = readString();
      if (members.has(key)) fail(`the key ${JSON.stringify(key)} is given twice`, keyAt);
      if (!take(':')) fail('`:` is expected');
      members.set(key, readValue(depth + 1));
    } while (take(','));
    if (!take('}')) fail('`,` or `}` is expected');
    return members;
  }

  function readArray(depth: number): JsonNode[] {
    const items: JsonNode[] = [];
    at += 1;
    if (take(']')) return items;
    do items.push(readValue(depth + 1));
    while (take(','));
    if (!take(']')) fail('`,` or `]` is expected');
    return items;
  }

  function readString(): string {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON strings hold none
    const [quoted] = /^"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/.exec(text.slice(at)) ?? [];
    if (quoted === undefined) fail('the string does not end, or holds what must be escaped');
    at += quoted.length;
    return JSON.parse(quoted) as string;
  }

  function take(sign: string): boolean {
    skipSpace();
    if (text[at] !== sign) return false;
    at += 1;
    return true;
  }

  function skipSpace(): void {
    while (at < text.length && ' \t\n\r'.includes(text[at] as string)) at += 1;
  }

  function placeOf(index: number): { line: number; column: number } {
    const before = text.slice(0, index).split('\n');
    return { line: before.length, column: (before.at(-1) ?? '').length + 1 };
  }

  function fail(what: string, index = at): never {
    throw new JsonInvalid(placeOf(index), what);
  }
}
