-- The life that the action has ended, or whose failure it has reset, so that the unit would start anew: systemd does not call a unit failed
-- that is down in it still.
ALTER TABLE unit_action ADD COLUMN ended_life text;
CREATE INDEX unit_action_ended_life ON unit_action (host) WHERE ended_life IS NOT NULL;
