-- Which process has a server's name: the one that took it last.

CREATE TABLE ca_runs (
    server TEXT PRIMARY KEY,
    run TEXT NOT NULL
);
