-- Audit rows are chained after their commit, in the order in which they are met: appending waits for nobody.
CREATE TABLE audit_seal (
  position bigint PRIMARY KEY,
  seq bigint NOT NULL UNIQUE,
  -- Of the row's content, and of the chain so far with it.
  row_hash bytea NOT NULL,
  chain_hash bytea NOT NULL,
  sealed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seal FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
ALTER TABLE audit_seal ENABLE ALWAYS TRIGGER append_only;

-- Where the chain ends, and below which number no row can turn up any more that is not sealed.
CREATE TABLE audit_head (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  position bigint NOT NULL DEFAULT 0,
  chain_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
  settled_seq bigint NOT NULL DEFAULT 0,
  -- Every row up to seen_seq has been seen or belongs to a transaction that was under way then: settled once all those have ended.
  seen_seq bigint NOT NULL DEFAULT 0,
  seen_xmax xid8 NOT NULL DEFAULT '0'
);
INSERT INTO audit_head DEFAULT VALUES;
