"""Card pipeline: receives webhooks about payment cards without loss and processes them through Kafka.

Start with the command, ``pipeline --help``. docs/reference/public-api.md lists what code outside may rely on.
The version is that of the distribution ``card-pipeline``.
"""
