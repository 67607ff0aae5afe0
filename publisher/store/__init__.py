"""The bucket: listing, reading, archiving, and what it is set to announce."""
