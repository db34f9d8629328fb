"""Card pipeline: webhooks about payment cards, received without loss and worked off in Kafka.

Start with the command, ``pipeline --help``. docs/reference/public-api.md lists what code outside may rely on.
The version is that of the distribution ``card-pipeline``.
"""
