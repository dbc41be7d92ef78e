-- The broker's store. One text for SQLite and PostgreSQL: times are BIGINT microseconds since 1970 and always passed in,
-- JSON is TEXT, identifiers are made in Python, every change of state is a compare-and-swap.

-- One row. `name_key` makes principals' names (hex); `incarnation` changes when the store is restored or promoted.
CREATE TABLE installation (
    one         BIGINT PRIMARY KEY CHECK (one = 1),
    id          TEXT   NOT NULL,
    incarnation TEXT   NOT NULL,
    name_key    TEXT   NOT NULL,
    made_at     BIGINT NOT NULL
);

-- One row: the number of the newest event. Taken last in a transaction, so commit order is number order.
CREATE TABLE epoch (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    n   BIGINT NOT NULL
);

-- `touched` is what the fence writes. `due_at` is the sooner of deadline and the third missed beat; NULL is never.
-- `drained_at` is set when nothing of an ended task is left outside.
CREATE TABLE tasks (
    id         TEXT   PRIMARY KEY,
    root       TEXT   NOT NULL,
    parent     TEXT   REFERENCES tasks (id),
    state      TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    touched    BIGINT NOT NULL,
    owner      TEXT   NOT NULL,
    instance   TEXT,
    purpose    TEXT   NOT NULL,
    scope      TEXT   NOT NULL,
    opened_at  BIGINT NOT NULL,
    deadline   BIGINT,
    heartbeat  BIGINT,
    heard_at   BIGINT NOT NULL,
    due_at     BIGINT,
    key        TEXT,
    ended_at   BIGINT,
    end_reason TEXT,
    end_words  TEXT,
    drained_at BIGINT
);
CREATE INDEX tasks_by_parent ON tasks (parent);
CREATE INDEX tasks_by_root ON tasks (root, id);
CREATE INDEX tasks_by_owner ON tasks (owner, id);
CREATE INDEX tasks_by_instance ON tasks (instance) WHERE ended_at IS NULL;
CREATE INDEX tasks_due ON tasks (due_at) WHERE ended_at IS NULL;
CREATE INDEX tasks_draining ON tasks (ended_at, id) WHERE drained_at IS NULL;

-- Authority of a lease is its task's; an ending touches no row here. They are found by `leases_open`.
CREATE TABLE leases (
    id              TEXT   PRIMARY KEY,
    task            TEXT   NOT NULL REFERENCES tasks (id),
    task_version    BIGINT NOT NULL,
    role            TEXT   NOT NULL,
    target          TEXT   NOT NULL,
    engine          TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    facts           TEXT   NOT NULL,
    guarantee       TEXT   NOT NULL,
    state           TEXT   NOT NULL,
    version         BIGINT NOT NULL,
    generation      BIGINT NOT NULL,
    intended_at     BIGINT NOT NULL,
    until           BIGINT NOT NULL,
    last            BIGINT NOT NULL,
    ack_by          BIGINT NOT NULL,
    due_at          BIGINT NOT NULL,
    broker          TEXT   NOT NULL,
    attempts        BIGINT NOT NULL,
    acknowledged_at BIGINT,
    activated_at    BIGINT,
    revoking_at     BIGINT,
    close_reason    TEXT,
    access_ended_at BIGINT,
    closed_at       BIGINT,
    trouble         TEXT,
    UNIQUE (target, name)
);
CREATE INDEX leases_by_task ON leases (task, id);
CREATE INDEX leases_open ON leases (task, id) WHERE closed_at IS NULL;
CREATE INDEX leases_due ON leases (target, due_at, id) WHERE closed_at IS NULL;
CREATE INDEX leases_half_made ON leases (broker, id) WHERE state = 'intended';

-- What an idempotency key became: a lease, never a body (traps 13).
CREATE TABLE requests (
    task    TEXT   NOT NULL REFERENCES tasks (id),
    key     TEXT   NOT NULL,
    digest  TEXT   NOT NULL,
    lease   TEXT   NOT NULL REFERENCES leases (id),
    made_at BIGINT NOT NULL,
    PRIMARY KEY (task, key)
);

CREATE TABLE events (
    n     BIGINT PRIMARY KEY,
    kind  TEXT   NOT NULL,
    at    BIGINT NOT NULL,
    task  TEXT   NOT NULL,
    root  TEXT   NOT NULL,
    lease TEXT,
    body  TEXT   NOT NULL
);
CREATE INDEX events_by_root ON events (root, n);

-- One hash chain per writer (traps 39).
CREATE TABLE receipts (
    writer   TEXT   NOT NULL,
    number   BIGINT NOT NULL,
    previous TEXT   NOT NULL,
    hash     TEXT   NOT NULL,
    kind     TEXT   NOT NULL,
    at       BIGINT NOT NULL,
    actor    TEXT   NOT NULL,
    task     TEXT,
    lease    TEXT,
    body     TEXT   NOT NULL,
    PRIMARY KEY (writer, number)
);
CREATE INDEX receipts_by_task ON receipts (task, at, writer, number);

-- What another party must still be told; written in the transaction it tells of, gone when that party answered.
CREATE TABLE outbox (
    id       TEXT   PRIMARY KEY,
    party    TEXT   NOT NULL,
    kind     TEXT   NOT NULL,
    body     TEXT   NOT NULL,
    made_at  BIGINT NOT NULL,
    due_at   BIGINT NOT NULL,
    attempts BIGINT NOT NULL
);
CREATE INDEX outbox_due ON outbox (party, due_at, id);

CREATE TABLE operators (
    name        TEXT   PRIMARY KEY,
    fingerprint TEXT   NOT NULL UNIQUE,
    certificate BYTEA  NOT NULL,
    verbs       TEXT   NOT NULL,
    added_at    BIGINT NOT NULL,
    added_by    TEXT   NOT NULL
);

-- The epoch each enforcement point said it has applied.
CREATE TABLE confirmations (
    point       TEXT   PRIMARY KEY,
    incarnation TEXT   NOT NULL,
    n           BIGINT NOT NULL,
    said_at     BIGINT NOT NULL
);

-- Which broker processes live: a counter each raises; one seen unchanged for too long, by the watcher's own boot time,
-- is taken for dead. No times here.
CREATE TABLE brokers (
    broker  TEXT   PRIMARY KEY,
    counter BIGINT NOT NULL
);

-- Principals with our prefix that no lease knows of, until they are gone.
CREATE TABLE strangers (
    target        TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    first_seen_at BIGINT NOT NULL,
    sightings     BIGINT NOT NULL,
    PRIMARY KEY (target, name)
);
