-- What a device last said of its trust anchors, on an authenticated channel.
CREATE TABLE sighting (
    device     INTEGER PRIMARY KEY REFERENCES device (id),
    epoch      INTEGER NOT NULL, -- of the identity that it proved
    generation INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    serial     INTEGER NOT NULL, -- of the anchor statement that it accepted last; 0: none
    anchors    BLOB CHECK (length(anchors) % 32 = 0) -- their SHA-256, joined; NULL: none
) STRICT;
