-- What an idempotency key of an opening became, for a day; `opener` is a SPIFFE ID and the instance it came with.
CREATE TABLE openings (
    opener  TEXT   NOT NULL,
    key     TEXT   NOT NULL,
    digest  TEXT   NOT NULL,
    task    TEXT   NOT NULL,
    made_at BIGINT NOT NULL,
    PRIMARY KEY (opener, key)
);
CREATE INDEX openings_by_age ON openings (made_at);
