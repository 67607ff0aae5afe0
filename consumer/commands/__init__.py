"""The consumer's commands."""
