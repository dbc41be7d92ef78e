-- `listed` is the number of the list that first names the certificate, and above all numbers while none does. So what a
-- list still has to name is found by one look, by any server and after any crash.
ALTER TABLE ca_revoked ADD COLUMN listed BIGINT NOT NULL DEFAULT 4611686018427387904;

CREATE INDEX ca_revoked_listed ON ca_revoked (issuer_key_id, listed);

-- What is alive of all that was ever signed: for those who look for identities below a path.
CREATE INDEX ca_issued_end ON ca_issued (not_after);
