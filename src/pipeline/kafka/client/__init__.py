"""Wraps Kafka's client library. Only this package imports aiokafka or touches its internals."""
