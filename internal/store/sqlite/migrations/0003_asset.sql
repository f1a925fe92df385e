-- What a device serves, which somebody decides after its identity was issued,
-- and may change.
ALTER TABLE device ADD COLUMN asset TEXT;

CREATE UNIQUE INDEX device_asset ON device (asset COLLATE NOCASE) WHERE asset IS NOT NULL;

CREATE TABLE asset (
    id     INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device (id),
    asset  TEXT    NOT NULL, -- '': none
    source TEXT    NOT NULL,
    since  INTEGER
) STRICT;

CREATE INDEX asset_device ON asset (device, id);
