-- Times are microseconds since 1970-01-01 UTC, NULL for "never"; durations are
-- nanoseconds; lists and maps are JSON; hashes and signatures are bytes.

CREATE TABLE device (
    id              INTEGER PRIMARY KEY,
    name            TEXT    NOT NULL UNIQUE,
    epoch           INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    ledger_index    INTEGER NOT NULL,
    commissioned_at INTEGER,

    -- What manifests say, and what an operator put over it.
    address        TEXT NOT NULL,
    address_manual TEXT,
    labels         TEXT NOT NULL CHECK (json_valid(labels)),
    labels_manual  TEXT CHECK (labels_manual IS NULL OR json_valid(labels_manual)),
    names          TEXT NOT NULL CHECK (json_valid(names)),

    paused      INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    quarantined INTEGER NOT NULL DEFAULT 0 CHECK (quarantined IN (0, 1)),
    open        INTEGER NOT NULL DEFAULT 0 CHECK (open IN (0, 1)), -- has an enrolment in no final state

    -- The active certificate: what it says never changes, so it stands here too.
    cert_sha256     BLOB REFERENCES certificate (sha256),
    cert_serial     TEXT,
    cert_subject    TEXT,
    cert_issuer     TEXT,
    cert_not_before INTEGER,
    cert_not_after  INTEGER,

    enrolled_at  INTEGER,
    renew_at     INTEGER,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_attempt INTEGER,
    last_error   TEXT    NOT NULL DEFAULT '',

    -- When there is work: the later of the next attempt and the renewal.
    due_at INTEGER GENERATED ALWAYS AS (
        CASE WHEN paused OR quarantined THEN NULL
        ELSE max(
            coalesce(next_attempt, -9223372036854775807),
            CASE WHEN open OR cert_sha256 IS NULL THEN -9223372036854775807
            ELSE min(coalesce(renew_at, -9223372036854775807), cert_not_after) END)
        END) VIRTUAL,
    -- The earliest time at which renew_at can have been decided. A clock that
    -- shows an earlier one says that the other clock was wrong.
    renew_from INTEGER GENERATED ALWAYS AS (
        CASE WHEN paused OR quarantined THEN NULL
        ELSE renew_at - (cert_not_after - cert_not_before) END) VIRTUAL,

    CHECK ((cert_sha256 IS NULL) = (cert_not_after IS NULL) AND (cert_sha256 IS NULL) = (cert_not_before IS NULL))
) STRICT;

CREATE INDEX device_due ON device (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX device_renew_from ON device (renew_from) WHERE renew_from IS NOT NULL;
CREATE INDEX device_next_attempt ON device (next_attempt) WHERE next_attempt IS NOT NULL;
CREATE INDEX device_certificate ON device (cert_sha256) WHERE cert_sha256 IS NOT NULL;

CREATE TABLE address (
    id      INTEGER PRIMARY KEY,
    device  INTEGER NOT NULL REFERENCES device (id),
    address TEXT    NOT NULL,
    source  TEXT    NOT NULL,
    manual  INTEGER NOT NULL CHECK (manual IN (0, 1)),
    since   INTEGER
) STRICT;

CREATE INDEX address_device ON address (device, id);

-- Every certificate that a CA issued to us, also those that were refused.
CREATE TABLE certificate (
    id         INTEGER PRIMARY KEY,
    enrolment  BLOB    NOT NULL REFERENCES enrolment (id) DEFERRABLE INITIALLY DEFERRED, -- the first that had it
    sha256     BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32),
    serial     TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    issuer     TEXT    NOT NULL,
    issuer_der BLOB    NOT NULL,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    der        BLOB    NOT NULL
) STRICT;

CREATE INDEX certificate_serial ON certificate (serial, issuer_der);
CREATE INDEX certificate_enrolment ON certificate (enrolment);

-- The certificates of chains, once each.
CREATE TABLE ca_certificate (
    sha256 BLOB NOT NULL PRIMARY KEY CHECK (length(sha256) = 32),
    der    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolment (
    seq      INTEGER PRIMARY KEY,
    id       BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    device   INTEGER NOT NULL REFERENCES device (id),
    identity TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    state    TEXT    NOT NULL,
    ca       TEXT    NOT NULL,

    key           TEXT    NOT NULL,
    subject       TEXT    NOT NULL CHECK (json_valid(subject)),
    sans          TEXT    NOT NULL CHECK (json_valid(sans)),
    enclosed      INTEGER NOT NULL CHECK (enclosed IN (0, 1)),
    key_usage     TEXT    NOT NULL CHECK (json_valid(key_usage)),
    ext_key_usage TEXT    NOT NULL CHECK (json_valid(ext_key_usage)),
    confirmation  INTEGER NOT NULL,

    csr_sha256     BLOB CHECK (length(csr_sha256) = 32),
    spki_sha256    BLOB CHECK (length(spki_sha256) = 32),
    transaction_id TEXT    NOT NULL,
    submitted_at   INTEGER,
    pending        INTEGER NOT NULL CHECK (pending IN (0, 1)),
    issued_at      INTEGER,
    ca_date        INTEGER,
    certificate    INTEGER REFERENCES certificate (id),
    chain          BLOB CHECK (length(chain) % 32 = 0), -- the SHA-256 of its certificates, joined

    receipt_identity    TEXT NOT NULL,
    receipt_nonce       BLOB CHECK (length(receipt_nonce) = 32),
    receipt_algorithm   TEXT NOT NULL,
    receipt_possession  BLOB,
    receipt_statement   BLOB,
    receipt_params_id   BLOB CHECK (length(receipt_params_id) = 32),
    receipt_certificate BLOB CHECK (length(receipt_certificate) = 32),
    receipt_spki        BLOB CHECK (length(receipt_spki) = 32),

    -- The five steps of the paper, section VII.B.
    step_csr_request    INTEGER NOT NULL,
    step_key_and_csr    INTEGER NOT NULL,
    step_enrolment      INTEGER NOT NULL,
    step_verify_request INTEGER NOT NULL,
    step_verification   INTEGER NOT NULL,

    tries      INTEGER NOT NULL,
    next_try   INTEGER,
    last_error TEXT NOT NULL,
    failed_by  TEXT NOT NULL,
    created_at INTEGER,
    updated_at INTEGER
) STRICT;

CREATE UNIQUE INDEX enrolment_open ON enrolment (device) WHERE state NOT IN ('completed', 'failed');
CREATE INDEX enrolment_device ON enrolment (device, seq);

-- Which certificate was a device's active one since when; NULL for none.
CREATE TABLE tenure (
    id          INTEGER PRIMARY KEY,
    device      INTEGER NOT NULL REFERENCES device (id),
    certificate INTEGER REFERENCES certificate (id),
    since       INTEGER
) STRICT;

CREATE INDEX tenure_device ON tenure (device, id);

CREATE TABLE event (
    id        INTEGER PRIMARY KEY,
    device    INTEGER NOT NULL REFERENCES device (id),
    enrolment BLOB REFERENCES enrolment (id), -- NULL: of the device as such
    at        INTEGER,
    state     TEXT    NOT NULL,
    kind      TEXT    NOT NULL,
    class     TEXT    NOT NULL,
    party     TEXT    NOT NULL,
    message   TEXT    NOT NULL,
    took      INTEGER NOT NULL
) STRICT;

CREATE INDEX event_device ON event (device, id);
CREATE INDEX event_mismatch ON event (at) WHERE class = 'ca-mismatch';
