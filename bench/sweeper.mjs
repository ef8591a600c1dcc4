// One sweep of the built library, alone in its process, so that its memory can be told; JavaScript, for stripping types
// takes memory too, and what is shipped does none of it.
import { readFileSync } from 'node:fs';

/** @type {typeof import('../src/index.ts')} */
const library = await import(new URL('../dist/index.js', import.meta.url).href);
const { createLogger, loadConfig, openContext, sweep, systemClock } = library;

const url = process.argv[2] ?? '';
const loaded = loadConfig({ DATABASE_URL: url, RECLAIMD_LISTEN: 'off' });
if ('problems' in loaded) throw new Error(JSON.stringify(loaded.problems));
const log = createLogger('silent', 'bench');
const context = openContext({ config: loaded.config, databaseUrl: url, role: 'bench', clock: systemClock, log });
await context.checkSchema();
await context.probePgBoss();
const startedAt = performance.now();
const { failed } = await sweep(context.sweepDependencies(null, false));
const ms = performance.now() - startedAt;
// Not getrusage: its peak begins with that of the process that forked us.
const peak = /VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
process.send?.({ ms, failed, peakMegabytes: Number(peak) / 1024 });
await context.close();
process.disconnect();
