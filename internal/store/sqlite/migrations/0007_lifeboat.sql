-- A fourth kind of delivery: the lifeboat, whose version is its serial number.
CREATE TABLE delivery_of_four (
    id           INTEGER PRIMARY KEY,
    device       INTEGER NOT NULL REFERENCES device (id),
    kind         TEXT    NOT NULL CHECK (kind IN ('anchors', 'cross-signed-root', 'bundle', 'lifeboat')),
    version      INTEGER NOT NULL CHECK (version > 0),
    payload      BLOB    NOT NULL CHECK (length(payload) = 32), -- its SHA-256
    queued_at    INTEGER,
    delivered_at INTEGER, -- NULL: outstanding
    tries        INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT    NOT NULL DEFAULT ''
) STRICT;
INSERT INTO delivery_of_four SELECT id, device, kind, version, payload, queued_at, delivered_at, tries, last_error FROM delivery;
DROP TABLE delivery;
ALTER TABLE delivery_of_four RENAME TO delivery;

CREATE UNIQUE INDEX delivery_version ON delivery (device, kind, version);
CREATE UNIQUE INDEX delivery_outstanding ON delivery (device, kind) WHERE delivered_at IS NULL;
CREATE INDEX delivery_payload ON delivery (payload) WHERE delivered_at IS NULL;
CREATE INDEX delivery_lifeboat ON delivery (version, device) WHERE kind = 'lifeboat';
