-- One row a fingerprint: a trouble that comes back is the same incident, opened once more.
WITH earlier AS (
  SELECT fingerprint, max(id) AS kept, sum(occurrences)::int AS occurrences, min(first_seen_at) AS first_seen_at
  FROM incident GROUP BY fingerprint HAVING count(*) > 1
)
UPDATE incident i SET occurrences = e.occurrences, first_seen_at = e.first_seen_at FROM earlier e WHERE i.id = e.kept;
DELETE FROM incident i WHERE EXISTS (SELECT FROM incident later WHERE later.fingerprint = i.fingerprint AND later.id > i.id);
DROP INDEX incident_open_fingerprint;
CREATE UNIQUE INDEX incident_fingerprint ON incident (fingerprint);

ALTER TABLE incident
  -- Where the trouble is; null: the fleet's.
  ALTER COLUMN node DROP NOT NULL,
  ADD COLUMN stack text,
  ADD COLUMN env text,
  ADD COLUMN queues text[] NOT NULL DEFAULT '{}',
  -- Targets that are in trouble now, and at most in this opening: falling is progress.
  ADD COLUMN affected int NOT NULL DEFAULT 1,
  ADD COLUMN affected_most int NOT NULL DEFAULT 1,
  ADD COLUMN openings int NOT NULL DEFAULT 1,
  ADD COLUMN opened_at timestamptz NOT NULL DEFAULT now(),
  -- Of this opening: reopening clears it. A snooze lasts until its time, whatever happens.
  ADD COLUMN acknowledged_at timestamptz,
  ADD COLUMN acknowledged_by text,
  ADD COLUMN acknowledged_reason text,
  ADD COLUMN snoozed_until timestamptz,
  ADD COLUMN snoozed_by text,
  ADD COLUMN snoozed_reason text;
UPDATE incident SET opened_at = first_seen_at;

CREATE INDEX incident_open ON incident (class, node) WHERE resolved_at IS NULL;
CREATE INDEX incident_resolved_at ON incident (resolved_at DESC, id DESC) WHERE resolved_at IS NOT NULL;

-- The first and the last few of each incident; incident.occurrences has the exact count.
CREATE TABLE incident_occurrence (
  incident_id bigint NOT NULL REFERENCES incident ON DELETE CASCADE,
  number int NOT NULL,
  opening int NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  -- The node that saw it.
  node text NOT NULL,
  summary text NOT NULL,
  affected int NOT NULL,
  evidence jsonb NOT NULL,
  PRIMARY KEY (incident_id, number)
);

-- The first and the last few openings of each incident; incident.openings has the exact count.
CREATE TABLE incident_opening (
  incident_id bigint NOT NULL REFERENCES incident ON DELETE CASCADE,
  opening int NOT NULL,
  opened_at timestamptz NOT NULL,
  resolved_at timestamptz,
  PRIMARY KEY (incident_id, opening)
);
INSERT INTO incident_occurrence (incident_id, number, opening, at, node, summary, affected, evidence)
SELECT id, occurrences, openings, last_seen_at, node, summary, affected, evidence FROM incident;
INSERT INTO incident_opening (incident_id, opening, opened_at, resolved_at) SELECT id, openings, opened_at, resolved_at FROM incident;

-- What was done about an incident is found by its targets.
CREATE INDEX audit_of_target ON audit (target, seq);
