// One sweep of the built library, alone in its process, so that its memory can be told.
const library = (await import(new URL('../dist/index.js', import.meta.url).href)) as typeof import('../src/index.ts');
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
process.send?.({ ms, failed, peakMegabytes: process.resourceUsage().maxRSS / 1024 });
await context.close();
process.disconnect();
