"""Documents from Kafka."""
