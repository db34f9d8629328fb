"""Kafka's client library behind our own interfaces: the only package that imports aiokafka, or touches its inside."""
