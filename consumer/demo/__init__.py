"""The demo: a feed played into real services, watched, and compared with what the feed implies."""
