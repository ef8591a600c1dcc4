-- What a person wants done to a unit of some node: a row that only that node's daemon takes. Nothing is ever run twice: a command
-- whose daemon died while at it ends as unknown.
CREATE TABLE node_command (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node text NOT NULL,
  action text NOT NULL CHECK (action IN ('look', 'unit_heal', 'unit_restart', 'unit_stop')),
  unit text NOT NULL,
  actor text NOT NULL,
  reason text,
  -- The life and state that the preview showed; another by now is a drift.
  expected jsonb,
  requested_at timestamptz NOT NULL DEFAULT now(),
  -- Not taken by then, it never will be.
  take_by timestamptz NOT NULL,
  daemon_id uuid,
  lease_until timestamptz,
  outcome text CHECK (outcome IN ('done', 'failed', 'not_needed', 'refused', 'drifted', 'unknown', 'expired')),
  error text,
  -- Of a look: the unit as it was.
  answer jsonb,
  ended_at timestamptz
);
CREATE INDEX node_command_open ON node_command (node, id) WHERE outcome IS NULL;
CREATE INDEX node_command_ended ON node_command (ended_at);

CREATE TABLE node_command_event (
  command_id bigint NOT NULL REFERENCES node_command ON DELETE CASCADE,
  number int NOT NULL,
  event jsonb NOT NULL,
  PRIMARY KEY (command_id, number)
);
