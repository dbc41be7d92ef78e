-- What must rest and is secret, sealed under a key outside the store. A destroyed version keeps its row.
CREATE TABLE sealed (
    name         TEXT   NOT NULL,
    version      BIGINT NOT NULL,
    envelope     BYTEA,
    made_at      BIGINT NOT NULL,
    destroyed_at BIGINT,
    PRIMARY KEY (name, version)
);
