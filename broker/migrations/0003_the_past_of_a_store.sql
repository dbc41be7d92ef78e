-- `history` names the past this store is known to have: of a server on PostgreSQL, of a marker beside the file on SQLite.
-- Another one begins another incarnation, and from `quarantined_at` on nothing that no lease stands for is destroyed at a
-- target before somebody adopted it.
ALTER TABLE installation ADD COLUMN history TEXT;
ALTER TABLE installation ADD COLUMN quarantined_at BIGINT;

-- Targets that were looked at since, and from where on destroying is allowed again.
CREATE TABLE adoptions (
    target      TEXT   PRIMARY KEY,
    incarnation TEXT   NOT NULL,
    adopted_at  BIGINT NOT NULL,
    adopted_by  TEXT   NOT NULL
);
