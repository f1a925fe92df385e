-- Activations that were undone since the hook failed or the certificate was not
-- served.
ALTER TABLE enrolment ADD COLUMN rollbacks INTEGER NOT NULL DEFAULT 0;
