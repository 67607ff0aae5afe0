"""From message to rows: exactly once, in any order, into Postgres."""
