-- Which life of which unit an executor runs in, as far as its node can tell; null where it is in none.
ALTER TABLE executor
  ADD COLUMN unit text,
  ADD COLUMN unit_invocation text,
  -- Its unit is being stopped: until it has ended it is at work, however silent.
  ADD COLUMN draining boolean NOT NULL DEFAULT false;
