// A worker that takes one job and never ends it.
import { PgBoss } from 'pg-boss';

const [url = '', queue = ''] = process.argv.slice(2);
const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false, migrate: false, instanceHeartbeatSeconds: 1, max: 2 });
boss.on('error', () => undefined);
await boss.start();
await boss.work(queue, { pollingIntervalSeconds: 0.5 }, async ([job]) => {
  process.send?.(job?.id);
  await new Promise(() => setInterval(() => undefined, 60_000));
});
process.once('disconnect', () => process.exit(1));
