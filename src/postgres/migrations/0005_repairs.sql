-- A plan that a person was shown; its token executes it once. Nothing of the fleet is changed by a row here.
CREATE TABLE repair_preview (
  token uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  actor text NOT NULL,
  action text NOT NULL,
  -- What was asked for: the targets as spelled, and the policy where one was named.
  request jsonb NOT NULL,
  plan jsonb NOT NULL,
  plan_hash text NOT NULL,
  status text NOT NULL DEFAULT 'ready' CHECK (status IN ('ready', 'consumed', 'drifted', 'expired')),
  node text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL DEFAULT now() + interval '15 minutes',
  ended_at timestamptz
);
-- The same plan for the same actor is the same preview, as long as it is ready.
CREATE UNIQUE INDEX repair_preview_ready ON repair_preview (actor, plan_hash) WHERE status = 'ready';
CREATE INDEX repair_preview_ended ON repair_preview (coalesce(ended_at, expires_at));
