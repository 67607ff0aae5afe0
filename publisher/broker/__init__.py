"""RabbitMQ: connections, what is declared there, consuming, publishing until confirmed, dead letters."""
