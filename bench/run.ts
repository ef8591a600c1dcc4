// npm run bench [-- NAME ...] [--quick]: prints what it measured, on which versions; nothing here asserts.
import { execFileSync } from 'node:child_process';
import { benchAudit } from './audit.ts';
import { benchDetection } from './detection.ts';
import { benchFlows } from './flows.ts';
import { benchIdle } from './idle.ts';
import { benchIncidents } from './incidents.ts';
import { benchRetention } from './retention.ts';
import { printVersions } from './support.ts';
import { benchSweep } from './sweep.ts';
import { benchThroughput } from './throughput.ts';
import { benchUnits } from './units.ts';

const benches: Record<string, (quick: boolean) => Promise<void>> = {
  detection: benchDetection,
  throughput: benchThroughput,
  sweep: benchSweep,
  idle: benchIdle,
  incidents: benchIncidents,
  flows: benchFlows,
  audit: benchAudit,
  units: benchUnits,
  retention: benchRetention,
};
const quick = process.argv.includes('--quick');
const names = process.argv.slice(2).filter((argument) => argument !== '--quick');
const unknown = names.filter((name) => !Object.hasOwn(benches, name));
if (unknown.length > 0) {
  console.error(`no such bench: ${unknown.join(', ')}; there are ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}
// What is shipped is measured, not what a developer runs from source.
execFileSync('npm', ['run', '--silent', 'build'], { cwd: new URL('..', import.meta.url), stdio: ['ignore', 'ignore', 'inherit'] });
await printVersions();
for (const [name, bench] of Object.entries(benches)) if (names.length === 0 || names.includes(name)) await bench(quick);
