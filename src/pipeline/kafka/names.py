"""Logical topics and groups, and what they are called in the cluster."""

from __future__ import annotations

from pipeline.contracts import Topic, TopicName
from pipeline.kafka.settings import KafkaSettings


class Names:
    """Translates names both ways, as ``kafka.topic_prefix``, ``kafka.topics`` and ``kafka.group_prefix`` say."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._real = {topic: settings.topics.get(topic, settings.topic_prefix + topic) for topic in Topic}
        self._logical = {name: topic for topic, name in self._real.items()}
        self._topic_prefix = settings.topic_prefix
        self._group_prefix = settings.group_prefix

    def topic(self, topic: TopicName) -> str:
        """Return a topic's name in the cluster."""
        return self._real[Topic(topic)] if topic in self._real else self._topic_prefix + topic

    def logical(self, name: str) -> TopicName:
        """Return the topic of a name in the cluster. Raises KeyError for a topic without our prefix."""
        if name in self._logical:
            return self._logical[name]
        if not name.startswith(self._topic_prefix):
            raise KeyError(name)
        return name.removeprefix(self._topic_prefix)

    def group(self, name: str) -> str:
        """Return the consumer group of a stage, e.g. ``card-pipeline.process``."""
        return self._group_prefix + name
