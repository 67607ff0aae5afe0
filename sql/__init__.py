"""SQL only: `migrations/` in the order of their numbers, `queries/` by name."""
