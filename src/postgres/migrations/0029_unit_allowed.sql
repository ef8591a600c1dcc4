-- Whether the unit that an executor runs in is among those that its node may touch: where it is not, no repair of ours can stop it.
ALTER TABLE executor ADD COLUMN unit_allowed boolean NOT NULL DEFAULT false;
