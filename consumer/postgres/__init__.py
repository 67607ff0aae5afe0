"""Postgres: connections and pools, the statements of `sql/`, migrations, leases."""
