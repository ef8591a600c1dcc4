-- Whether somebody asked for the end of that life, once that was told: the journal forgets. Unknown where it is null.
ALTER TABLE unit_life ADD COLUMN stop_requested boolean;
