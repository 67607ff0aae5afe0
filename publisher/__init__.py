"""From bucket to broker: what arrived, said as messages; knows nothing of tickets or of Postgres."""
