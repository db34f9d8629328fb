"""One module per source: path to event type, key, topic, verification scheme. Pure."""
