"""Documents from a 0MQ proxy."""
