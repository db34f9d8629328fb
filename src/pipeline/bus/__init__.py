"""Kafka: producer, consumer loop, offsets, retry, dead letters. The only room that imports a Kafka client."""
