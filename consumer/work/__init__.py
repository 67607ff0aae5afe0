"""The process: threads, deliveries in hand, and the breaker."""
