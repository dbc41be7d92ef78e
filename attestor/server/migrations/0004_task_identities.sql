-- Identities of tasks: `/task/<id>` for one instance, asked for by a broker under a name of the broker's own.
--
-- `granted` is in force until `ends_at`, `withdrawn` is not any more and is still listed, `closed` is only remembered, so
-- that a grant which comes late finds its name taken. A name that was withdrawn before it was ever granted has no task.

CREATE TABLE task_identities (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('granted', 'withdrawn', 'closed')),
    reason TEXT NOT NULL,
    task TEXT,
    instance TEXT,
    node TEXT,
    ends_at BIGINT NOT NULL,
    confirmed_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE UNIQUE INDEX task_identities_in_force ON task_identities (task) WHERE state = 'granted';

CREATE INDEX task_identities_task ON task_identities (task, instance);

CREATE INDEX task_identities_instance ON task_identities (instance, state);

CREATE INDEX task_identities_node ON task_identities (node, instance) WHERE state = 'granted';

CREATE INDEX task_identities_end ON task_identities (ends_at) WHERE state = 'granted';
