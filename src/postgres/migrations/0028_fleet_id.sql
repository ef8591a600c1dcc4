-- Which fleet this is, in the names of its archive's files: fleets may share a directory. It never changes; a copy of the database has it, too.
ALTER TABLE fleet ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
