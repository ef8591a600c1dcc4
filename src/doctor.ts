import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { readHead, readSealBacklog } from './audit/queries.ts';
import { readActorsFile } from './authorization/actors-file.ts';
import type { Context } from './context.ts';
import { describeSharedName, findSharedNames } from './executors/shared-names.ts';
import { findAliases } from './healing/aliases.ts';
import { createAllowlist } from './healing/allowlist.ts';
import { readUnitOf } from './host/cgroup.ts';
import { ownershipState } from './ownership/install.ts';
import { findHarmless } from './polkit-probe.ts';
import { ownershipTrouble } from './project-incidents.ts';
import { lintQueues } from './supervision/lint.ts';
import { findTroubles, readOwnService } from './systemd/own-service.ts';

/** One thing that was looked at; `mend`: what to do where it is not as it should be. */
export interface Check {
  name: string;
  status: 'ok' | 'warn' | 'fail' | 'skipped';
  detail: string;
  mend?: string;
}

const LOOK_MS = 3_000;
/** A daemon chains every five seconds. */
const LONGEST_UNSEALED_SECONDS = 60;
/** As the package has it; the name under which it is looked for while it does not run. */
const OUR_UNIT = 'reclaimd.service';
const NAMED_EXECUTORS = 5;
const ok = (name: string, detail: string): Check => ({ name, status: 'ok', detail });
const warn = (name: string, detail: string, mend: string): Check => ({ name, status: 'warn', detail, mend });
const fail = (name: string, detail: string, mend: string): Check => ({ name, status: 'fail', detail, mend });
const skipped = (name: string, detail: string): Check => ({ name, status: 'skipped', detail });

/** Looks at everything that the daemon stands on, with the rights of whoever asks: run it as the daemon's user. Changes nothing (but see `findHarmless`). */
export async function* examine(context: Context): AsyncGenerator<Check> {
  const database = await checkDatabase(context);
  yield database;
  if (database.status !== 'fail') {
    const schema = await guarded('schema', 'run `reclaimd migrate` as the owner', () => checkSchema(context));
    yield schema;
    const pgboss = await guarded('pg-boss', 'see RECLAIMD_PGBOSS_SCHEMA', () => checkPgBoss(context));
    yield pgboss;
    if (schema.status === 'ok' && pgboss.status !== 'fail') {
      for (const check of [checkPrivileges, checkOwnership, checkNames, checkDaemon, checkSight, checkAudit, checkArchive])
        yield await guarded(NAMES.get(check) ?? '', 'apply what `reclaimd grants` prints', () => check(context));
      yield* lint(context);
    }
  }
  const systemd = await checkSystemd(context);
  yield systemd;
  if (context.units && systemd.status === 'fail')
    for (const name of ['unit', 'polkit', 'journal']) yield skipped(name, 'needs systemd: mend that first');
  else {
    yield* examineService(context);
    yield await checkPolkit(context);
    yield await checkJournal(context);
  }
  yield await checkActors(context);
}

async function guarded(name: string, mend: string, check: () => Promise<Check>): Promise<Check> {
  return check().catch((error: unknown) => fail(name, error instanceof Error ? error.message : String(error), mend));
}

async function checkDatabase({ database, clock }: Context): Promise<Check> {
  return guarded('database', 'see DATABASE_URL, and whether the server lets this host in', async () => {
    await database.query('SELECT 1');
    const startedAt = clock.now();
    const [row] = await database.query<{ number: number; version: string }>(
      `SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version`,
    );
    const answered = `Postgres ${row?.version}, answers in ${(clock.now() - startedAt).toFixed(1)} ms`;
    return (row?.number ?? 0) >= 140_000 ? ok('database', answered) : fail('database', answered, 'Postgres 14 or newer is needed');
  });
}

async function checkSchema({ checkSchema: check, config }: Context): Promise<Check> {
  await check();
  return ok('schema', `"${config.schema}" is up to date`);
}

async function checkPgBoss({ probePgBoss }: Context): Promise<Check> {
  const { mode, detail } = await probePgBoss();
  if (mode === 'act') return ok('pg-boss', detail);
  return mode === 'wait'
    ? warn('pg-boss', detail, 'start a worker once: it installs pg-boss')
    : fail('pg-boss', detail, 'until then nothing is changed');
}

/** Those that every part stands on; the rest shows where it is used. */
async function checkPrivileges({ database, pgbossSchema }: Context): Promise<Check> {
  const rows = await database.query<{ what: string; granted: boolean }>(
    `SELECT what, granted FROM (VALUES
       ('change pg-boss''s jobs', has_table_privilege(format('%I.job', $1::text), 'SELECT, INSERT') AND has_table_privilege(format('%I.job', $1::text), 'UPDATE')
         AND has_table_privilege(format('%I.job', $1::text), 'DELETE')),
       ('write the audit', has_column_privilege('audit', 'detail', 'INSERT')),
       ('record recoveries', has_table_privilege('recovery', 'INSERT')),
       ('rotate ownership', has_table_privilege('attempt_a', 'TRUNCATE')),
       ('see other roles'' sessions', pg_has_role('pg_read_all_stats', 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'))
     ) AS needed(what, granted)`,
    [pgbossSchema],
  );
  const missing = rows.filter(({ granted }) => !granted).map(({ what }) => what);
  if (missing.length === 0) return ok('privileges', 'everything that the daemon does');
  return fail('privileges', `this role may not: ${missing.join(', ')}`, 'apply what `reclaimd grants --role ROLE` prints');
}

async function checkOwnership({ database, config, pgbossSchema }: Context): Promise<Check> {
  const state = await ownershipState(database, { schema: config.schema, pgbossSchema });
  const trouble = ownershipTrouble(state);
  if (trouble !== undefined) return fail('ownership', trouble, 'run `reclaimd install-ownership`: without it no job can be given back');
  if (state.missing.length > 0)
    return warn(
      'ownership',
      `${state.missing.length} job tables are not covered`,
      'the daemon covers them within seconds where it has the TRIGGER right',
    );
  return ok('ownership', `recorded on ${state.tables.length} job tables`);
}

async function checkNames({ database }: Context): Promise<Check> {
  const shared = await findSharedNames(database);
  if (shared.length === 0) return ok('names', 'every worker that is known has an application_name of its own');
  const detail = shared.map((name) => `${describeSharedName(name)} (${name.executors.slice(0, NAMED_EXECUTORS).join(', ')})`).join('; ');
  return warn('names', detail, 'let pg-boss name their sessions (no application_name of yours), or give each process one of its own');
}

async function checkDaemon({ database, config }: Context): Promise<Check> {
  const daemon = await readDaemon(database, config.node);
  const mend = 'systemctl start reclaimd, and look at `systemctl status reclaimd`';
  if (!daemon) return warn('daemon', `no daemon has ever run as ${config.node}`, mend);
  if (!daemon.runs)
    return warn(
      'daemon',
      `the daemon of ${config.node} ${daemon.stopped ? 'was stopped' : `has been silent for ${Math.round(daemon.seconds)} s`}`,
      mend,
    );
  return ok('daemon', `${config.node} beats, from host ${daemon.host}`);
}

async function readDaemon(database: Context['database'], node: string) {
  const [row] = await database.query<{ seconds: number; stopped: boolean; host: string; pid: number; runs: boolean }>(
    `SELECT extract(epoch FROM now() - beat_at)::float8 AS seconds, stopped_at IS NOT NULL AS stopped, host, pid,
       stopped_at IS NULL AND beat_at > now() - interval '10 seconds' AS runs
     FROM node WHERE node = $1`,
    [node],
  );
  return row;
}

/** The unit that the daemon runs in, or would: what protects it, and what protects the host from it. */
async function* examineService({ database, config, units }: Context): AsyncGenerator<Check> {
  if (!units) return yield skipped('unit', 'not used');
  const of = config.systemd === 'user' ? 'user' : 'system';
  const daemon = await readDaemon(database, config.node).catch(() => undefined);
  const runsIn = daemon?.runs && daemon.host === hostname() ? readUnitOf(daemon.pid, of) : undefined;
  const service = await readOwnService(runsIn ?? OUR_UNIT, of);
  if (!service) return yield warn('unit', 'no unit of systemd runs the daemon: nobody starts it again', 'see README, "As a service"');
  const troubles = findTroubles(service, of);
  for (const { detail, mend } of troubles) yield warn('unit', `${service.unit}: ${detail}`, mend);
  if (troubles.length > 0) return;
  const exposure = service.exposure === undefined ? '' : `, with an exposure of ${service.exposure}`;
  yield ok('unit', `${service.unit} runs it as ${service.user || 'its user'}, watched and restarted${exposure}`);
}

/** Workers of this host that beat but that nobody holds in sight. */
async function checkSight({ database }: Context): Promise<Check> {
  const [row] = await database.query<{ seen: number; unseen: number }>(
    `SELECT count(*) FILTER (WHERE witness_node IS NOT NULL)::int AS seen, count(*) FILTER (WHERE witness_node IS NULL AND pid IS NOT NULL)::int AS unseen
     FROM executor WHERE host = $1 AND stopped_at IS NULL AND proof IS NULL AND beat_at > now() - make_interval(secs => 2 * beat_seconds)`,
    [hostname()],
  );
  const { seen = 0, unseen = 0 } = row ?? {};
  if (unseen === 0)
    return ok('processes', seen === 0 ? 'no living executor of this host is known yet' : `${seen} executors of this host are in sight`);
  return warn(
    'processes',
    `${unseen} living executors of this host are not in sight: their deaths are noticed by silence alone`,
    'the daemon must see their /proc entries (no hidepid), in the same pid namespace, under the same host name',
  );
}

/** systemd says only on trial what polkit allows: where none can be made, the daemon's last heal is all that is known. */
async function checkPolkit(context: Context): Promise<Check> {
  const { units, config, tryReset } = context;
  if (config.units.length === 0) return skipped('polkit', 'RECLAIMD_UNITS is empty: no unit is ever touched');
  if (!units || !tryReset) return skipped('polkit', 'not used');
  if (config.systemd === 'user') return ok('polkit', "the user's own manager does not ask it");
  const mend = 'put what `reclaimd polkit` prints into /etc/polkit-1/rules.d/50-reclaimd.rules, and see whether polkit.service runs';
  return guarded('polkit', mend, async () => {
    if (process.getuid?.() === 0) return recallHeal(context, 'root may do everything', mend);
    const unit = await findHarmless(units.manager, config.units);
    if (unit === undefined) return recallHeal(context, 'RECLAIMD_UNITS allows none that could be asked about without consequence', mend);
    const denial = await tryReset(unit);
    if (denial === undefined) return ok('polkit', `this user may heal, asked about ${unit}`);
    return fail('polkit', `this user may not heal, asked about ${unit}: ${denial}`, mend);
  });
}

/** Of the daemon's own heals, as far as they came to ask systemd. */
async function recallHeal({ database }: Context, reason: string, mend: string): Promise<Check> {
  const [row] = await database
    .query<{ unit: string; error: string; denied: boolean }>(
      `SELECT unit, error, start->>'note' LIKE 'BusDenied:%' AS denied
       FROM unit_action, jsonb_path_query_first(phases, '$[*] ? (@.phase == "start")') AS start
       WHERE host = $1 AND automatic AND start->>'note' NOT LIKE 'BusUnreachable:%' ORDER BY id DESC LIMIT 1`,
      [hostname()],
    )
    .catch(() => []);
  if (!row) return skipped('polkit', `${reason}; no heal of this host's daemon is known`);
  if (!row.denied) return skipped('polkit', `${reason}; the daemon's last heal (${row.unit}) was allowed`);
  return warn('polkit', `${reason}; the daemon's last heal (${row.unit}) was denied: ${row.error}`, mend);
}

/** Events that are not chained are protected by a trigger alone. */
async function checkAudit({ database }: Context): Promise<Check> {
  const mend = 'see the loop "audit" in the log of the daemons, and `reclaimd audit verify`';
  if (!(await readHead(database))) return fail('audit', 'the end of its chain is gone: nothing is chained any more', mend);
  const seconds = await readSealBacklog(database);
  if (seconds !== null && seconds > LONGEST_UNSEALED_SECONDS)
    return warn('audit', `events of the last ${Math.round(seconds)} s are not chained yet`, mend);
  return ok('audit', 'its chain is up to date; whether it is whole, `reclaimd audit verify` tells');
}

async function checkArchive({ config: { archiveDirectory } }: Context): Promise<Check> {
  if (archiveDirectory === undefined) return ok('archive', 'in the database');
  const mend = 'RECLAIMD_ARCHIVE_DIR must be there and writable for the user of the daemon; under systemd /var/lib/reclaimd is';
  return guarded('archive', mend, async () => {
    if (!(await stat(archiveDirectory)).isDirectory()) return fail('archive', `${archiveDirectory} is no directory`, mend);
    await access(archiveDirectory, constants.R_OK | constants.W_OK | constants.X_OK);
    return ok('archive', `files in ${archiveDirectory}`);
  });
}

const NAMES = new Map<(context: Context) => Promise<Check>, string>([
  [checkPrivileges, 'privileges'],
  [checkOwnership, 'ownership'],
  [checkNames, 'names'],
  [checkDaemon, 'daemon'],
  [checkSight, 'processes'],
  [checkAudit, 'audit'],
  [checkArchive, 'archive'],
]);

async function* lint({ database, supervision, config }: Context): AsyncGenerator<Check> {
  const findings = await lintQueues(database, supervision, {
    takenOver: config.pgbossSupervise,
    outageGraceSeconds: config.outageGraceMs / 1000,
  });
  if (findings.length === 0) yield ok('queues', 'their settings fit');
  for (const { queue, message, mend } of findings) yield warn(queue === null ? 'queues' : `queue ${queue}`, message, mend);
}

async function checkSystemd({ units, config }: Context): Promise<Check> {
  const mend = 'see RECLAIMD_SYSTEMD and RECLAIMD_SYSTEMD_BUS, and whether dbus.service runs';
  if (!units)
    return config.units.length > 0
      ? fail('systemd', 'RECLAIMD_UNITS names units, but there is no systemd to be asked', mend)
      : skipped('systemd', 'not used');
  return guarded('systemd', mend, async () => {
    const allowlist = createAllowlist(config.units);
    const listed = allowlist.patterns.length === 0 ? [] : (await units.manager.list(allowlist.patterns)).filter(allowlist.allowsUnit);
    if (allowlist.patterns.length === 0) await units.manager.read('dbus.service');
    const aliases = await findAliases(units.manager, config);
    if (aliases.length > 0) return warn('systemd', `it answers; ${aliases.join('; ')}`, 'a unit is allowed by its own name alone');
    if (allowlist.patterns.length > 0 && listed.length === 0)
      return warn('systemd', 'it answers, but knows no unit of RECLAIMD_UNITS', 'see whether the names and patterns are meant so');
    return ok('systemd', allowlist.patterns.length === 0 ? 'it answers' : `it answers; ${listed.length} units may be healed`);
  });
}

async function checkJournal({ units }: Context): Promise<Check> {
  if (!units) return skipped('journal', 'not used');
  const mend = 'make the user a member of systemd-journal';
  return guarded('journal', mend, async () => {
    const bus = await units.manager.read('dbus.service').catch(() => undefined);
    if (!bus) return skipped('journal', 'systemd does not say what to look for in it');
    const end = await units.journal.readLastLines(bus.invocationId, 1, AbortSignal.timeout(LOOK_MS));
    if (end.length > 0) return ok('journal', 'it can be read');
    return warn('journal', 'nothing can be read of it: why units ended, and their last words, stay unknown', mend);
  });
}

async function checkActors({ config }: Context): Promise<Check> {
  const { actorsFile } = config;
  if (actorsFile === undefined)
    return warn('actors', 'whoever has the database credentials may execute every repair', 'name who may do what in RECLAIMD_ACTORS_FILE');
  return guarded('actors', 'see RECLAIMD_ACTORS_FILE', async () => {
    const { permissions } = readActorsFile(actorsFile);
    return ok('actors', `${actorsFile}: rights for ${permissions.size} actors`);
  });
}
