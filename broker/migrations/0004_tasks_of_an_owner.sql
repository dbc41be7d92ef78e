-- An owner's tasks are asked for while they live or something of them is left outside; those that are over are many.
DROP INDEX tasks_by_owner;
CREATE INDEX tasks_of_owner ON tasks (owner, id) WHERE drained_at IS NULL;
