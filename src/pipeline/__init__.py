"""Card pipeline: webhooks about payment cards, received without loss and worked off in Kafka.

Start with the command, ``pipeline --help``. docs/public-api.md lists what code outside may rely on; the version is
that of the distribution ``card-pipeline``.
"""
