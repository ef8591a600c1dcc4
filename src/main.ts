#!/usr/bin/env -S node --max-semi-space-size=4 --heap-growing-percent=30
import { createRequire } from 'node:module';
import { CommanderError } from 'commander';
import { ActorsFileInvalid } from './authorization/actors-file.ts';
import { EXIT } from './cli/command.ts';
import { spellControls } from './cli/output.ts';
import { createProgram } from './cli/program.ts';
import { UsageError } from './cli/usage-error.ts';
import { SchemaNotReady } from './context.ts';
import { PgBossModuleUnusable } from './pgboss/release.ts';
import { SchemaIsNewer } from './postgres/migrate.ts';

const { version } = createRequire(import.meta.url)('../package.json') as { version: string };

/** Errors of what we were given or pointed at: exit code 2, as DESIGN has it. */
const CONFIGURATION_ERRORS = [UsageError, SchemaNotReady, SchemaIsNewer, PgBossModuleUnusable, ActorsFileInvalid];

/** Of a process that was told to end: whatever still keeps it alive then keeps it no longer. */
const LINGER_MS = 1_000;

const stopping = new AbortController();

async function main(): Promise<number> {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => stopping.abort());
  // A reader that has seen enough (`| head`), or a terminal that is closed, ends us as a signal does, not with a crash that leaves things running.
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
      stopping.abort();
    });
  let exitCode: number = EXIT.done;
  const surroundings = {
    env: process.env,
    out: (text: string) => process.stdout.write(`${spellControls(text)}\n`),
    signal: stopping.signal,
  };
  const program = createProgram(surroundings, version, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync();
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    process.stderr.write(`reclaimd: ${spellControls(error instanceof Error ? error.message : String(error))}\n`);
    return CONFIGURATION_ERRORS.some((Class) => error instanceof Class) || (error as { name?: string }).name === 'ListenFailed'
      ? EXIT.usage
      : EXIT.failed;
  }
}

process.exitCode = await main();
if (stopping.signal.aborted) setTimeout(() => process.exit(), LINGER_MS).unref();
else stopping.signal.addEventListener('abort', () => process.exit());
