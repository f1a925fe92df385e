-- What all processes know of the CAs, as JSON.
CREATE TABLE breaker (
    ca    TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL CHECK (json_valid(state))
) STRICT, WITHOUT ROWID;

-- They are no longer derived from the history.
DROP INDEX event_mismatch;

-- When a device first proved its identity here.
ALTER TABLE device ADD COLUMN reached_at INTEGER;
UPDATE device SET reached_at = coalesce(
    (SELECT min(at) FROM event WHERE event.device = device.id AND kind = 'progress'),
    (SELECT at FROM sighting WHERE sighting.device = device.id),
    enrolled_at);

-- Since when a device is out of service; then it is in no index that follows,
-- nor among those of devices with times of their next attempt or renewal.
ALTER TABLE device ADD COLUMN decommissioned_at INTEGER;

-- Of the identity (epoch, generation), so that a list of the fleet need not hash
-- each of them to the curve.
ALTER TABLE device ADD COLUMN public_key BLOB CHECK (length(public_key) = 48);
CREATE TRIGGER device_identity AFTER UPDATE OF epoch, generation ON device
    WHEN (old.epoch <> new.epoch OR old.generation <> new.generation) AND new.public_key IS NOT NULL
    BEGIN UPDATE device SET public_key = NULL WHERE id = new.id; END;

-- A device that was never tried is for enrol to begin with, and never due.
DROP INDEX device_due;
ALTER TABLE device DROP COLUMN due_at;
ALTER TABLE device ADD COLUMN due_at INTEGER GENERATED ALWAYS AS (
    CASE WHEN paused OR quarantined OR decommissioned_at IS NOT NULL OR NOT open AND cert_sha256 IS NULL AND last_error = '' THEN NULL
    ELSE max(
        coalesce(next_attempt, -9223372036854775807),
        CASE WHEN open OR cert_sha256 IS NULL THEN -9223372036854775807
        ELSE min(coalesce(renew_at, -9223372036854775807), cert_not_after) END)
    END) VIRTUAL;
CREATE INDEX device_due ON device (due_at) WHERE due_at IS NOT NULL;

-- For the census of the fleet and the plan of its renewals.
CREATE INDEX device_renew_at ON device (renew_at) WHERE renew_at IS NOT NULL AND NOT paused AND NOT quarantined;
CREATE INDEX device_end ON device (cert_not_after, cert_not_before, paused, quarantined, decommissioned_at) WHERE decommissioned_at IS NULL;
CREATE INDEX device_enrolled ON device (enrolled_at) WHERE enrolled_at IS NOT NULL;
CREATE INDEX device_failing ON device (id) WHERE last_error <> '' AND decommissioned_at IS NULL;
CREATE INDEX device_quarantined ON device (id) WHERE quarantined AND decommissioned_at IS NULL;
CREATE INDEX device_paused ON device (id) WHERE paused AND decommissioned_at IS NULL;
CREATE INDEX device_open ON device (id) WHERE open;
CREATE INDEX device_unreached ON device (commissioned_at) WHERE reached_at IS NULL AND NOT paused AND decommissioned_at IS NULL;

-- How many devices are in service, and when one was worked on last.
CREATE TABLE fleet (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    devices  INTEGER NOT NULL,
    tried_at INTEGER
) STRICT;
INSERT INTO fleet (id, devices, tried_at)
    SELECT 1, count(*), (SELECT at FROM event WHERE enrolment IS NOT NULL ORDER BY id DESC LIMIT 1) FROM device;
CREATE TRIGGER device_added AFTER INSERT ON device BEGIN UPDATE fleet SET devices = devices + 1; END;
CREATE TRIGGER device_removed AFTER DELETE ON device WHEN old.decommissioned_at IS NULL BEGIN UPDATE fleet SET devices = devices - 1; END;
CREATE TRIGGER device_decommissioned AFTER UPDATE OF decommissioned_at ON device
    WHEN old.decommissioned_at IS NULL AND new.decommissioned_at IS NOT NULL BEGIN UPDATE fleet SET devices = devices - 1; END;
CREATE TRIGGER device_reinstated AFTER UPDATE OF decommissioned_at ON device
    WHEN old.decommissioned_at IS NOT NULL AND new.decommissioned_at IS NULL BEGIN UPDATE fleet SET devices = devices + 1; END;

-- How often each kind of event happened since the inventory began, whatever
-- became of the events.
CREATE TABLE tally (
    kind  TEXT    NOT NULL,
    class TEXT    NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (kind, class)
) STRICT, WITHOUT ROWID;
INSERT INTO tally (kind, class, n) SELECT kind, class, count(*) FROM event GROUP BY kind, class;

-- How long the steps of completed enrolments took; bucket is the index of the
-- upper bound.
CREATE TABLE step (
    name   TEXT    NOT NULL,
    bucket INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    sum    INTEGER NOT NULL,
    PRIMARY KEY (name, bucket)
) STRICT, WITHOUT ROWID;

-- For what is not kept for ever; the second for the reference to enrolments.
CREATE INDEX event_passing ON event (at) WHERE kind IN ('progress', 'retry', 'warning', 'failed', 'queued', 'not-delivered');
CREATE INDEX event_enrolment ON event (enrolment) WHERE enrolment IS NOT NULL;
CREATE INDEX enrolment_fruitless ON enrolment (updated_at) WHERE state = 'failed' AND certificate IS NULL;
