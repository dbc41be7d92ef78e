-- A row that can't be read is noted in `quarantine` and found by no list any more; whoever asks for it by its id is told.
ALTER TABLE leases ADD COLUMN set_aside BIGINT;
ALTER TABLE outbox ADD COLUMN set_aside BIGINT;
CREATE INDEX leases_set_aside ON leases (task, id) WHERE set_aside IS NOT NULL AND closed_at IS NULL;
