-- The authorities of one trust domain, everything they were asked to sign, and the number of their bundle.

CREATE TABLE ca_authorities (
    key_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('root', 'issuing', 'jwt')),
    state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'old', 'tainted', 'revoked', 'retired')),
    key_name TEXT NOT NULL UNIQUE,
    issuer_key_id TEXT REFERENCES ca_authorities (key_id),
    public_key BYTEA NOT NULL,
    certificate BYTEA,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    signed_until BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    key_destroyed_at BIGINT
);

CREATE UNIQUE INDEX ca_authorities_active ON ca_authorities (kind) WHERE state = 'active';

CREATE UNIQUE INDEX ca_authorities_prepared ON ca_authorities (kind) WHERE state = 'prepared';

-- A row is durable before the signature exists, and is never changed or removed.
CREATE TABLE ca_issued (
    issuer_key_id TEXT NOT NULL,
    serial TEXT NOT NULL,
    kind TEXT NOT NULL,
    spiffe_id TEXT NOT NULL,
    instance TEXT,
    not_after BIGINT NOT NULL,
    PRIMARY KEY (issuer_key_id, serial)
);

CREATE INDEX ca_issued_instance ON ca_issued (instance, not_after);

-- A key that is about to be made; the row goes when its authority is there.
CREATE TABLE ca_key_intents (
    key_name TEXT PRIMARY KEY
);

CREATE TABLE ca_bundle (
    trust_domain TEXT PRIMARY KEY,
    sequence BIGINT NOT NULL,
    members TEXT NOT NULL
);
