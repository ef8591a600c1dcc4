-- Each life of a daemon beats in a row of its own: whose processes it holds in sight is asked of that life, not of its node, whose
-- row the next life takes over, or another daemon that was given the same name.
CREATE TABLE daemon (
  id uuid PRIMARY KEY,
  beat_at timestamptz NOT NULL DEFAULT now(),
  stopped_at timestamptz
);
INSERT INTO daemon (id, beat_at, stopped_at) SELECT DISTINCT ON (daemon_id) daemon_id, beat_at, stopped_at FROM node ORDER BY daemon_id, beat_at DESC;

ALTER TABLE executor ADD COLUMN witness_daemon_id uuid;
UPDATE executor e SET witness_daemon_id = n.daemon_id FROM node n WHERE n.node = e.witness_node AND n.boot_id = e.witness_boot_id;
