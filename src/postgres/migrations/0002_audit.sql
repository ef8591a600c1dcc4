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

-- Written once: neither the daemon's role nor the owner changes or removes what is there.
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit is append-only: % refused', lower(TG_OP) USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
-- Replication roles and `session_replication_role = replica` do not get round it.
ALTER TABLE audit ENABLE ALWAYS TRIGGER append_only;
