"""Card pipeline: webhooks about payment cards, received without loss and worked off in Kafka.

Start with the command, ``pipeline --help``. What code outside may rely on stands in docs/public-api.md; the version is
that of the distribution ``card-pipeline``.
"""
