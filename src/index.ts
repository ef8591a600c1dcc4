export type { Policy } from './actions/limits.ts';
export { type ArchiveVerification, verifyArchive } from './audit/archived.ts';
export { type AuditVerification, type ExpectedHead, verifyAudit } from './audit/chain.ts';
export type { AuditProblem } from './audit/problem.ts';
export type { ArchivedEvent } from './audit/unit.ts';
export type { Action, Decision, Resource } from './authorization/action.ts';
export type { HostAuthorize } from './authorization/authorize.ts';
export type { Config } from './config.ts';
export { loadConfig } from './config.ts';
export { type Context, type ContextOptions, openContext } from './context.ts';
export { createDaemon, type Daemon, type DaemonOptions } from './daemon.ts';
export { type ExecutorHealth, listExecutorHealth, refreshHeartbeats } from './executors/health.ts';
export type { Heartbeat } from './executors/queries.ts';
export { type Evidence, type Judgement, judge, type Proof, type Thresholds, thresholds, type Verdict } from './executors/verdict.ts';
export { type Detection, detect, type UnitHealth } from './healing/detect.ts';
export { enrich } from './healing/enrich.ts';
export {
  type HealDependencies,
  type HealEvent,
  type Healer,
  type HealSummary,
  healAll,
  healUnit,
  summary,
  type UnitHealed,
} from './healing/heal.ts';
export { type AttentionDependencies, type AttentionRequest, type AttentionResult, acknowledge, snooze } from './incidents/attention.ts';
export type { IncidentClass, Severity } from './incidents/class.ts';
export type { IncidentChanges } from './incidents/incident.ts';
export { type Incident, type IncidentFilter, type IncidentHistory, listIncidents, readIncident } from './incidents/listing.ts';
export { createDatabase, type Database, type Sql } from './postgres/database.ts';
export { migrate } from './postgres/migrate.ts';
export { projectIncidents } from './project-incidents.ts';
export type { AttemptQuestion, PolicyRule, ResolvePolicy } from './recovery/policy.ts';
export { type SweepDependencies, type SweepOptions, type SweepReport, type SweepResult, sweep } from './recovery/sweep.ts';
export { type ExecuteRequest, executeRepair } from './repairs/execute.ts';
export type { JobPlan } from './repairs/job-plan.ts';
export type { RepairExecuted, TargetOutcome } from './repairs/outcome.ts';
export type { RepairPlan } from './repairs/plan.ts';
export { type PreviewRequest, previewRepair, type RepairDependencies, type RepairPreview, type RepairRefused } from './repairs/preview.ts';
export { type ClassResult, type PruneDependencies, type PruneResult, runArchivePrune } from './retention/prune.ts';
export { createUnitReader } from './retention/read-unit.ts';
export { type Restored, restoreFile } from './retention/restore.ts';
export { type ClassStatus, type RetentionStatus, retentionStatus } from './retention/status.ts';
export { systemClock } from './runtime/clock.ts';
export { createLogger } from './runtime/logger.ts';
export { type LintFinding, lintQueues } from './supervision/lint.ts';
export { type ReconcileReport, type ReconcileResult, reconcileWorkflows } from './workflows/reconcile.ts';
export { instanceMoved, onReplay, REPLAY_EVENT, type ReplayedEvent, type StepEnd, stepMoved, trackStep } from './workflows/tracking.ts';
