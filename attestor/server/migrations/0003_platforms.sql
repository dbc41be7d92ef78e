-- Tokens that platforms gave: to which keys each was bound, and the instances that came of them without a node agent.

-- `touched` is the fence: whoever binds a key takes the row first, so that no two take the first place.
CREATE TABLE platform_tokens (
    id TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    touched BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX platform_tokens_expiry ON platform_tokens (expires_at);

-- `parts` is a list of texts, in JSON: what ran in the pod when the key was bound. A further key needs one that is in no
-- earlier row.
CREATE TABLE platform_token_keys (
    token TEXT NOT NULL REFERENCES platform_tokens (id),
    n BIGINT NOT NULL,
    key_hash TEXT NOT NULL,
    parts TEXT NOT NULL,
    bound_at BIGINT NOT NULL,
    PRIMARY KEY (token, n)
);

-- The one instance of a pod or job. Not renewed by `renew_by` it has ended.
CREATE TABLE direct_instances (
    subject TEXT PRIMARY KEY,
    instance TEXT NOT NULL,
    renew_by BIGINT NOT NULL
);

CREATE INDEX direct_instances_due ON direct_instances (renew_by);

-- What an operator should look at: it was refused, and nobody honest does it.
CREATE TABLE risk_events (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    at BIGINT NOT NULL
);

CREATE INDEX risk_events_at ON risk_events (at);
