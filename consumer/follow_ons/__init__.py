"""What a file leaves to be done after its COMMIT: the outbox, and history."""
