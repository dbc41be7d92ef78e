-- What was found out about an instance when it last got a credential: what another set of rules would give it can be
-- said before that set is in force. Lists of texts, in JSON.

CREATE TABLE instance_facts (
    instance TEXT PRIMARY KEY REFERENCES instances (id),
    selectors TEXT NOT NULL,
    ancestors TEXT NOT NULL
);
