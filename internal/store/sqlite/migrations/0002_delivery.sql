-- What is queued to be handed over to devices, and what was.
CREATE TABLE delivery (
    id           INTEGER PRIMARY KEY,
    device       INTEGER NOT NULL REFERENCES device (id),
    kind         TEXT    NOT NULL CHECK (kind IN ('anchors', 'cross-signed-root', 'bundle')),
    version      INTEGER NOT NULL CHECK (version > 0),
    payload      BLOB    NOT NULL CHECK (length(payload) = 32), -- its SHA-256
    queued_at    INTEGER,
    delivered_at INTEGER, -- NULL: outstanding
    tries        INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT    NOT NULL DEFAULT ''
) STRICT;

CREATE UNIQUE INDEX delivery_version ON delivery (device, kind, version);
CREATE UNIQUE INDEX delivery_outstanding ON delivery (device, kind) WHERE delivered_at IS NULL;
CREATE INDEX delivery_payload ON delivery (payload) WHERE delivered_at IS NULL;

-- The payloads of those that are outstanding, once each: a statement goes to
-- the whole fleet.
CREATE TABLE payload (
    sha256 BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32),
    data   BLOB NOT NULL CHECK (length(data) BETWEEN 1 AND 73728)
) STRICT;
