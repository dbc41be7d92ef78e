-- What only one open lease may have at a time (`target/account`): an account that is lent, and not made.
ALTER TABLE leases ADD COLUMN exclusive TEXT;
CREATE UNIQUE INDEX leases_exclusive ON leases (exclusive) WHERE exclusive IS NOT NULL AND closed_at IS NULL;
