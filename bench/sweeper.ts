// One sweep, alone in its process, so that its memory can be told.
import { loadConfig } from '../src/config.ts';
import { openContext } from '../src/context.ts';
import { sweep } from '../src/recovery/sweep.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { createLogger } from '../src/runtime/logger.ts';

const url = process.argv[2] ?? '';
const loaded = loadConfig({ DATABASE_URL: url, RECLAIMD_LISTEN: 'off' });
if ('problems' in loaded) throw new Error(JSON.stringify(loaded.problems));
const context = openContext({
  config: loaded.config,
  databaseUrl: url,
  role: 'bench',
  clock: systemClock,
  log: createLogger('silent', 'bench'),
});
await context.checkSchema();
await context.probePgBoss();
const startedAt = performance.now();
const { failed } = await sweep(context.sweepDependencies(null, false));
const ms = performance.now() - startedAt;
process.send?.({ ms, failed, peakMegabytes: process.resourceUsage().maxRSS / 1024 });
await context.close();
process.disconnect();
