"""From a delivery to rows: one file's way through claim, reading, cleaning, merge and archive."""
