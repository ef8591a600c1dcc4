CREATE TABLE audit (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor text NOT NULL,
  action text NOT NULL,
  target text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('done', 'partial', 'failed', 'denied', 'drifted', 'expired', 'unknown')),
  reason text,
  node text NOT NULL,
  detail jsonb NOT NULL
);
