-- What is due, overdue, or was given up is found by an index of its own: nothing looks at every row.

-- `called_at`: when the leases of an ended task were made due; NULL until all of them are.
ALTER TABLE tasks ADD COLUMN called_at BIGINT;
UPDATE tasks SET called_at = drained_at WHERE drained_at IS NOT NULL;
CREATE INDEX tasks_to_call ON tasks (ended_at, id) WHERE ended_at IS NOT NULL AND called_at IS NULL;
CREATE INDEX tasks_live ON tasks (id) WHERE ended_at IS NULL;

-- `end_due_at`: when its access should have ended; NULL while it may be used.
ALTER TABLE leases ADD COLUMN end_due_at BIGINT;
UPDATE leases SET end_due_at = COALESCE(revoking_at, intended_at)
    WHERE closed_at IS NULL AND state IN ('revoking', 'in_doubt');
CREATE UNIQUE INDEX leases_by_name ON leases (name);
CREATE INDEX leases_unended ON leases (target, end_due_at, id)
    WHERE closed_at IS NULL AND access_ended_at IS NULL AND end_due_at IS NOT NULL;
CREATE INDEX leases_active ON leases (target, due_at, id) WHERE state = 'active';
CREATE INDEX leases_open_by_id ON leases (id) WHERE closed_at IS NULL;

-- What one operator proposed to give up unverified; a second one confirms within the hour. `what`: `lease:…`, `target:…`.
CREATE TABLE disownings (
    what        TEXT   PRIMARY KEY,
    proposed_by TEXT   NOT NULL,
    proposed_at BIGINT NOT NULL
);

-- Rows that can't be read: set aside so that they stop no other, and kept until somebody mended or gave them up.
CREATE TABLE quarantine (
    tab    TEXT   NOT NULL,
    id     TEXT   NOT NULL,
    reason TEXT   NOT NULL,
    since  BIGINT NOT NULL,
    PRIMARY KEY (tab, id)
);
