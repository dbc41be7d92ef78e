-- Several servers over one store, each with keys of its own; WIT keys; roots kept elsewhere; revocation lists.
-- A CHECK can't be changed in SQLite, so the table is made anew.

CREATE TABLE ca_authorities_new (
    key_id TEXT PRIMARY KEY,
    server TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('root', 'issuing', 'jwt', 'wit')),
    state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'old', 'tainted', 'revoked', 'retired')),
    key_name TEXT NOT NULL UNIQUE,
    issuer_key_id TEXT,
    public_key BYTEA NOT NULL,
    certificate BYTEA,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    signed_until BIGINT NOT NULL,
    published_at BIGINT NOT NULL,
    published_in BIGINT NOT NULL,
    forced BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    key_destroyed_at BIGINT
);

INSERT INTO ca_authorities_new (key_id, server, kind, state, key_name, issuer_key_id, public_key, certificate,
    not_before, not_after, signed_until, published_at, published_in, forced, changed_at, key_destroyed_at)
SELECT key_id, 'main', kind, state, key_name, issuer_key_id, public_key, certificate,
    not_before, not_after, signed_until, changed_at, 0, 0, changed_at, key_destroyed_at
FROM ca_authorities;

DROP TABLE ca_authorities;

ALTER TABLE ca_authorities_new RENAME TO ca_authorities;

CREATE UNIQUE INDEX ca_authorities_active ON ca_authorities (server, kind) WHERE state = 'active';

CREATE UNIQUE INDEX ca_authorities_prepared ON ca_authorities (server, kind) WHERE state = 'prepared';

ALTER TABLE ca_key_intents ADD COLUMN server TEXT NOT NULL DEFAULT 'main';

-- Raised by every change of an authority, before anything else the change does.
ALTER TABLE ca_bundle ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;

-- Which generation a server has shown to everybody that follows it, and since when.
CREATE TABLE ca_servers (
    server TEXT PRIMARY KEY,
    generation BIGINT NOT NULL,
    told_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);

-- Roots whose keys are kept elsewhere, as each server was told of them.
CREATE TABLE ca_anchors (
    server TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    certificate BYTEA NOT NULL,
    published_at BIGINT NOT NULL,
    PRIMARY KEY (server, fingerprint)
);

-- What a revocation list names until it has expired.
CREATE TABLE ca_revoked (
    issuer_key_id TEXT NOT NULL,
    serial TEXT NOT NULL,
    not_after BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (issuer_key_id, serial)
);

CREATE INDEX ca_revoked_end ON ca_revoked (not_after);

-- The newest list of each authority that signs certificates.
CREATE TABLE ca_lists (
    issuer_key_id TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    der BYTEA NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL
);
