-- Where a writer's chain begins once its first entries were forgotten: the last of those. The entries that are left
-- verify from here.
CREATE TABLE checkpoints (
    writer TEXT   PRIMARY KEY,
    number BIGINT NOT NULL,
    hash   TEXT   NOT NULL,
    at     BIGINT NOT NULL,
    cut_at BIGINT NOT NULL
);
CREATE INDEX tasks_over ON tasks (drained_at, id) WHERE parent IS NULL AND drained_at IS NOT NULL;
CREATE INDEX requests_by_lease ON requests (lease);
