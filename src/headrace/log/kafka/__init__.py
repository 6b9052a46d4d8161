"""Streams on Apache Kafka: the same log, as a topic."""

from headrace.log.kafka.log import KafkaLog, open_kafka_log
from headrace.log.kafka.settings import CLIENT_SETTINGS, KafkaSecurity, KafkaSettings

__all__ = ["CLIENT_SETTINGS", "KafkaLog", "KafkaSecurity", "KafkaSettings", "open_kafka_log"]
