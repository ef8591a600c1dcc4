import { createHash } from 'node:crypto';
import { type FileHandle, lstat, open, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { createGzip, gunzip } from 'node:zlib';
import { DatabaseError } from '../postgres/errors.ts';

/** What a file of the archive says of itself, in the file beside it. */
export interface Manifest {
  file: string;
  class: string;
  rows: number;
  /** Of the compressed file. */
  bytes: number;
  sha256: string;
  node: string;
  run: string;
  /** Of reclaimd's schema, that the rows have their form from. */
  schemaVersion: number;
}

/** Records as one text, a JSON value a line. */
export interface JsonLines {
  rows: number;
  lines: string;
}

export class ArchiveNotWritten extends Error {
  override readonly name = 'ArchiveNotWritten';
}

/** A file of the archive that is not there, not whole, or not what its manifest says. */
export class ArchiveDamaged extends Error {
  override readonly name = 'ArchiveDamaged';
}

const ENDING = '.jsonl.gz';
export const manifestName = (name: string) => `${name.slice(0, -ENDING.length)}.manifest.json`;

/**
 * Compressed JSON lines with a manifest beside them. Both are on disk, whole, under their names when this returns; a crash
 * leaves at most a part under another name. What it could not finish it takes away; what was there before, it neither writes over nor removes.
 * @param records as they come: none is kept in memory for longer than it takes to compress it.
 * @returns undefined where there were none: then there is no file.
 * @throws ArchiveNotWritten, naming the directory and what was wrong with it; what the database says when it is asked for the records.
 */
export async function writeArchiveFile(
  directory: string,
  name: string,
  records: AsyncIterable<JsonLines>,
  about: Omit<Manifest, 'file' | 'rows' | 'bytes' | 'sha256'>,
): Promise<Manifest | undefined> {
  const made = new Set<string>();
  try {
    const written = await writePart(directory, name, made, (part) => compress(records, part));
    if (written.rows === 0) {
      await rm(join(directory, partOf(name)));
      return undefined;
    }
    const manifest = { file: name, ...about, ...written };
    await writePart(directory, manifestName(name), made, (part) => part.writeFile(`${JSON.stringify(manifest, null, 2)}\n`));
    for (const file of [name, manifestName(name)]) {
      await rename(join(directory, partOf(file)), join(directory, file));
      made.delete(join(directory, partOf(file)));
      made.add(join(directory, file));
    }
    await syncDirectory(directory);
    return manifest;
  } catch (cause) {
    for (const path of made) await rm(path, { force: true }).catch(() => undefined);
    if (cause instanceof DatabaseError) throw cause;
    throw new ArchiveNotWritten(`nothing can be archived in ${directory}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
}

const partOf = (file: string) => `.${file}.part`;
const digest = (content: Uint8Array) => createHash('sha256').update(content).digest('hex');

/**
 * Under its name for the time being, and on disk; noted in `made` as soon as it is there. Whoever holds that name is the only one who may give a
 * file its own: that it was free once the part was there makes it safe to rename the part, also where a file system knows no hard links.
 */
async function writePart<T>(directory: string, file: string, made: Set<string>, write: (part: FileHandle) => Promise<T>): Promise<T> {
  const path = join(directory, partOf(file));
  const part = await open(path, 'wx', 0o600);
  made.add(path);
  try {
    if (await isThere(join(directory, file))) throw new Error(`${file} is there already`);
    const result = await write(part);
    await part.sync();
    return result;
  } finally {
    await part.close();
  }
}

const isThere = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? false : Promise.reject(error)),
  );

/** @returns how much it was, compressed. */
async function compress(records: AsyncIterable<JsonLines>, file: FileHandle): Promise<Pick<Manifest, 'rows' | 'bytes' | 'sha256'>> {
  const hash = createHash('sha256');
  let rows = 0;
  let bytes = 0;
  async function* texts() {
    for await (const { rows: more, lines } of records) {
      rows += more;
      yield `${lines}\n`;
    }
  }
  await pipeline(texts, createGzip(), async (compressed: AsyncIterable<Buffer>) => {
    for await (const chunk of compressed) {
      hash.update(chunk);
      bytes += chunk.length;
      await file.writeFile(chunk);
    }
  });
  return { rows, bytes, sha256: hash.digest('hex') };
}

/** A rename is on disk when its directory is. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  await handle.sync().finally(() => handle.close());
}

/**
 * What a file holds, one JSON text a line, after its hash and its rows have been compared with its manifest.
 * @throws ArchiveDamaged
 */
export async function readArchiveFile(path: string): Promise<{ manifest: Manifest; lines: string[] }> {
  if (!path.endsWith(ENDING)) throw new ArchiveDamaged(`${path}: a file of the archive ends in ${ENDING}`);
  const manifest = await readManifest(join(dirname(path), manifestName(basename(path))));
  const content = await readFile(path).catch((cause: unknown) => Promise.reject(damaged(path, cause)));
  if (digest(content) !== manifest.sha256) throw new ArchiveDamaged(`${path}: its hash is ${digest(content)}, not the manifest's`);
  const text = await promisify(gunzip)(content).catch((cause: unknown) => Promise.reject(damaged(path, cause)));
  const lines = text.toString('utf8').trimEnd().split('\n');
  if (lines.length !== manifest.rows) throw new ArchiveDamaged(`${path}: it has ${lines.length} rows, its manifest says ${manifest.rows}`);
  return { manifest, lines };
}

async function readManifest(path: string): Promise<Manifest> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => Promise.reject(damaged(path, cause)));
  try {
    const manifest = JSON.parse(text) as Partial<Manifest>;
    if (typeof manifest.class === 'string' && typeof manifest.sha256 === 'string' && typeof manifest.rows === 'number')
      return manifest as Manifest;
  } catch {
    // Said below: it is no manifest.
  }
  throw new ArchiveDamaged(`${path}: no manifest with class, rows and sha256`);
}

function damaged(path: string, cause: unknown): ArchiveDamaged {
  return new ArchiveDamaged(`${path}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
}
