-- Foreign trust domains: the newest bundle of each, as it was fetched from its endpoint or as an operator gave it.
-- `document` is a bundle in the SPIFFE form, or NULL while there is none. `origin` is the SHA-256 of the bundle the first
-- fetch was checked with. `version` grows with every write: whoever fetched for long does not overwrite an operator's word.
CREATE TABLE federated_domains (
    trust_domain TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    document TEXT,
    origin TEXT NOT NULL,
    fetched_at BIGINT,
    due_at BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    trouble TEXT NOT NULL,
    version BIGINT NOT NULL
);
