-- What has been seen is settled by the id of the transaction that saw it; the end of what had completed was not enough.
ALTER TABLE audit_head RENAME COLUMN seen_xmax TO seen_xid;
UPDATE audit_head SET seen_seq = settled_seq;

-- The end of the chain moves forward, along its seals, and in no other way.
CREATE FUNCTION refuse_head_change() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF NEW.position >= OLD.position AND NEW.settled_seq >= OLD.settled_seq AND NEW.seen_seq >= OLD.seen_seq
      -- Seen is what is there, and settled what was seen before and is sealed.
      AND NEW.seen_seq <= greatest(OLD.seen_seq, (SELECT max(a.seq) FROM audit a))
      AND NEW.settled_seq <= greatest(OLD.settled_seq, OLD.seen_seq)
      AND NOT EXISTS (
        SELECT FROM audit a WHERE a.seq > OLD.settled_seq AND a.seq <= NEW.settled_seq AND NOT EXISTS (SELECT FROM audit_seal s WHERE s.seq = a.seq)
      ) AND (
        (NEW.position = OLD.position AND NEW.chain_hash = OLD.chain_hash)
        OR EXISTS (SELECT FROM audit_seal s WHERE s.position = NEW.position AND s.chain_hash = NEW.chain_hash)
      ) THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'the end of the audit moves forward along its seals only: % refused', lower(TG_OP) USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER forward_only BEFORE UPDATE OR DELETE ON audit_head FOR EACH ROW EXECUTE FUNCTION refuse_head_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit_head FOR EACH STATEMENT EXECUTE FUNCTION refuse_head_change();
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER forward_only, ENABLE ALWAYS TRIGGER no_truncate;

-- Where what is left of the chain begins: its events up to `position` are in the archive, as one unit each row.
CREATE TABLE audit_checkpoint (
  position bigint PRIMARY KEY,
  chain_hash bytea NOT NULL,
  -- The unit's first event, and the chain before it.
  first_position bigint NOT NULL,
  before_hash bytea NOT NULL,
  -- Where the unit is: a row of `archive`, or a file.
  archive_id bigint,
  archive_file text,
  archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK (num_nonnulls(archive_id, archive_file) = 1)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoint FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
ALTER TABLE audit_checkpoint ENABLE ALWAYS TRIGGER append_only;

-- An event may go once a checkpoint says that it is archived.
CREATE FUNCTION refuse_unarchived() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF EXISTS (SELECT FROM audit_seal s WHERE s.seq = OLD.seq AND s.position <= (SELECT max(c.position) FROM audit_checkpoint c)) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'the audit is append-only: delete refused' USING ERRCODE = 'insufficient_privilege';
END
$$;
DROP TRIGGER append_only ON audit;
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER archived_only BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_unarchived();
ALTER TABLE audit ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER archived_only;
DROP TRIGGER append_only ON audit_seal;
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit_seal FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER archived_only BEFORE DELETE ON audit_seal FOR EACH ROW EXECUTE FUNCTION refuse_unarchived();
ALTER TABLE audit_seal ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER archived_only;

-- Removes the beginning of the chain, up to a seal: the only way for an event to go. It puts the unit into the archive itself, or wants the
-- register of a file with just as many rows. No event that is younger than 30 days goes, whatever the caller thinks of its period.
CREATE FUNCTION prune_audit(through bigint, end_hash bytea, file text DEFAULT NULL)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  start_position bigint;
  start_hash bytea;
  unit bigint;
  removed int;
BEGIN
  PERFORM FROM audit_head FOR UPDATE;
  SELECT c.position, c.chain_hash INTO start_position, start_hash FROM audit_checkpoint c ORDER BY c.position DESC LIMIT 1;
  start_position := coalesce(start_position, 0);
  start_hash := coalesce(start_hash, decode(repeat('00', 32), 'hex'));
  IF NOT EXISTS (SELECT FROM audit_seal s WHERE s.position = through AND s.chain_hash = end_hash AND s.position > start_position) THEN
    RAISE EXCEPTION 'the audit has no seal % with that hash', through USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF EXISTS (SELECT FROM audit_seal s JOIN audit a ON a.seq = s.seq WHERE s.position <= through AND a.at > now() - interval '30 days') THEN
    RAISE EXCEPTION 'an event up to % is younger than 30 days', through USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF file IS NULL THEN
    INSERT INTO archive (class, record) SELECT 'audit', jsonb_build_object('events', jsonb_agg(jsonb_build_object(
      'position', s.position, 'rowHash', encode(s.row_hash, 'hex'), 'seq', a.seq::text,
      'at', to_char(a.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), 'actor', a.actor, 'action', a.action, 'target', a.target,
      'outcome', a.outcome, 'reason', a.reason, 'node', a.node, 'detail', a.detail::text) ORDER BY s.position))
    FROM audit_seal s JOIN audit a ON a.seq = s.seq WHERE s.position <= through RETURNING id INTO unit;
  ELSIF NOT EXISTS (SELECT FROM archive_file f WHERE f.name = file AND f.class = 'audit' AND f.rows = through - start_position)
    OR EXISTS (SELECT FROM audit_checkpoint c WHERE c.archive_file = file) THEN
    RAISE EXCEPTION 'the events up to % are not in the archive', through USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO audit_checkpoint VALUES (through, end_hash, start_position + 1, start_hash, unit, file);
  DELETE FROM audit a USING audit_seal s WHERE s.seq = a.seq AND s.position <= through;
  GET DIAGNOSTICS removed = ROW_COUNT;
  DELETE FROM audit_seal s WHERE s.position <= through;
  RETURN removed;
END
$$;
REVOKE EXECUTE ON FUNCTION prune_audit FROM PUBLIC;

-- The register of the archive's files: what lies in the directory without a row here was left behind by a crash.
CREATE TABLE archive_file (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id bigint NOT NULL,
  class text NOT NULL,
  node text NOT NULL,
  directory text NOT NULL,
  name text NOT NULL UNIQUE,
  rows int NOT NULL,
  bytes bigint NOT NULL,
  sha256 text NOT NULL,
  archived_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX archive_file_run ON archive_file (run_id);

-- A unit of the audit stays in the archive for 30 days at least, and as it is.
CREATE FUNCTION refuse_unit_change() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'DELETE' AND OLD.archived_at < now() - interval '30 days' THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'a unit of the audit stays in the archive: % refused', lower(TG_OP) USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER units_stay BEFORE UPDATE OR DELETE ON archive FOR EACH ROW WHEN (OLD.class = 'audit') EXECUTE FUNCTION refuse_unit_change();
CREATE TRIGGER units_stay BEFORE UPDATE OR DELETE ON archive_file FOR EACH ROW WHEN (OLD.class = 'audit') EXECUTE FUNCTION refuse_unit_change();
ALTER TABLE archive ENABLE ALWAYS TRIGGER units_stay;
ALTER TABLE archive_file ENABLE ALWAYS TRIGGER units_stay;

-- What an investigation has read back from a file.
CREATE TABLE restored (
  file text NOT NULL,
  line int NOT NULL,
  class text NOT NULL,
  record jsonb NOT NULL,
  restored_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (file, line)
);

-- A run holds it while it works, renewed with each batch: there is one run at a time.
ALTER TABLE retention_run ADD COLUMN lease_until timestamptz NOT NULL DEFAULT now();
