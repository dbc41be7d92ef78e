-- Which machines were admitted, with which token, and which instances live on them.

CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL,
    node TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);

-- `admission` stands in every leaf of the node and changes with each attestation: leaves of an earlier one are refused.
-- `live_counter` is the newest live set applied, `seen_at` the time of the newest report.
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('admitted', 'evicted', 'banned')),
    admission TEXT NOT NULL,
    method TEXT NOT NULL,
    selectors TEXT NOT NULL,
    admitted_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    live_counter BIGINT NOT NULL
);

-- `since` is the counter of the first live set that holds the instance: an older set does not speak of it.
-- `bound`: it opened a task, or a rule with a `bind` named it; its end is told to who watches and revokes its leaves.
CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (id),
    state TEXT NOT NULL CHECK (state IN ('live', 'unobserved', 'ended')),
    reason TEXT NOT NULL,
    strength TEXT NOT NULL,
    bound BIGINT NOT NULL,
    since BIGINT NOT NULL,
    began_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE INDEX instances_node ON instances (node, state, id);

CREATE INDEX instances_state ON instances (state, changed_at);

CREATE TABLE instance_identities (
    instance TEXT NOT NULL REFERENCES instances (id),
    spiffe_id TEXT NOT NULL,
    rule TEXT NOT NULL,
    bind TEXT NOT NULL,
    PRIMARY KEY (instance, spiffe_id)
);

-- What became of instances, in order. `n` comes from one counter row as the last thing of a transaction, so commit order
-- is number order and a gap is an error.
CREATE TABLE instance_changes (
    n BIGINT PRIMARY KEY,
    instance TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    at BIGINT NOT NULL
);

CREATE TABLE instance_changes_counter (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    n BIGINT NOT NULL
);

INSERT INTO instance_changes_counter (only_row, n) VALUES (1, 0);
