"""Ways in: the poller, the webhook receiver, an AWS queue."""
