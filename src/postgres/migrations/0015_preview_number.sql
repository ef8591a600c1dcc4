-- By which the audit names a preview: it must not repeat a token that may still be good.
ALTER TABLE repair_preview ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
