-- How many secrets a SPIFFE ID was given in a minute since 1970, where that is bounded; each broker writes its own row.
CREATE TABLE grants (
    minute BIGINT NOT NULL,
    owner  TEXT   NOT NULL,
    broker TEXT   NOT NULL,
    n      BIGINT NOT NULL,
    PRIMARY KEY (minute, owner, broker)
);
