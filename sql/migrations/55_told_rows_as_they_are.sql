-- To compress them took as long as to gather them, of every large file, and saved 15 bytes a row beside the 900 that a
-- content takes which is kept.
ALTER TABLE ingest.told_rows
    ALTER COLUMN ticket_ids SET STORAGE EXTERNAL,
    ALTER COLUMN lines SET STORAGE EXTERNAL,
    ALTER COLUMN digests SET STORAGE EXTERNAL;
