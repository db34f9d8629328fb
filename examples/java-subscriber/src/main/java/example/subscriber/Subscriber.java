package example.subscriber;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A member of a consumer group that calls a handler with each event: at least once, without repeats, and in order per
 * partition and therefore per key.
 *
 * <p>The log is the only state. After an assignment, the subscriber reads a partition again from before its committed
 * offset, and only remembers the ids of the records before that offset. It commits offsets after the handler, so after a
 * crash it handles at most the records of one poll again.
 *
 * <p>A record that cannot be read, or a handler that fails, stops the program, and nothing is lost. In production, write
 * such a record to the group's own topic, {@code <group>.dead-letter}, with unchanged value and headers, and with further
 * headers that say where it comes from and why it failed. The example omits that.
 */
final class Subscriber implements AutoCloseable, ConsumerRebalanceListener {
  /** How many events are handled again after a crash, at most. */
  static final int IN_FLIGHT = 100;

  interface Handler {
    void handle(String id, String type, Object event) throws IOException;
  }

  private static final Duration POLL = Duration.ofMillis(200);

  private final KafkaConsumer<byte[], byte[]> consumer;
  private final String group;
  private final EventTypes types;
  private final Handler handler;
  private final Map<TopicPartition, RepeatWindow> windows = new HashMap<>();
  private final Map<TopicPartition, Long> resumed = new HashMap<>();

  Subscriber(String bootstrap, String group, String topic, EventTypes types, Handler handler) {
    Properties settings = new Properties();
    settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(ConsumerConfig.GROUP_ID_CONFIG, group);
    settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    settings.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, IN_FLIGHT);
    settings.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 6_000);
    settings.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 2_000);
    consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    this.group = group;
    this.types = types;
    this.handler = handler;
    consumer.subscribe(List.of(topic), this);
  }

  /** Handles events until none has arrived for this time. */
  void run(Duration idle) throws IOException {
    long last = System.nanoTime();
    while (System.nanoTime() - last < idle.toNanos()) {
      ConsumerRecords<byte[], byte[]> records = consumer.poll(POLL);
      for (TopicPartition partition : records.partitions()) {
        long next = 0;
        for (ConsumerRecord<byte[], byte[]> record : records.records(partition)) {
          take(partition, record);
          next = record.offset() + 1;
        }
        if (next > resumed.get(partition)) {
          consumer.commitSync(Map.of(partition, new OffsetAndMetadata(next)));
        }
      }
      if (!records.isEmpty()) {
        last = System.nanoTime();
      }
    }
  }

  @Override
  public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
    Map<TopicPartition, Long> beginnings = consumer.beginningOffsets(partitions);
    for (TopicPartition partition : partitions) {
      long committed = consumer.position(partition);
      resumed.put(partition, committed);
      windows.put(partition, new RepeatWindow());
      consumer.seek(partition, Math.max(beginnings.get(partition), committed - RepeatWindow.RECORDS));
    }
  }

  @Override
  public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
    windows.keySet().removeAll(partitions); // everything that was polled is handled and committed
  }

  @Override
  public void close() {
    consumer.close();
  }

  private void take(TopicPartition partition, ConsumerRecord<byte[], byte[]> record) throws IOException {
    if (isForAnother(record)) {
      return;
    }
    boolean before = record.offset() < resumed.get(partition);
    String id = header(record, "ce_id");
    if (id.isEmpty() && before) {
      return;
    }
    if (id.isEmpty()) {
      throw new IllegalStateException(record.topic() + " " + place(record) + " has no ce_id");
    }
    String replayed = header(record, "replayed_from"); // a replayed dead letter has the id of an event that came before
    String known = replayed.isEmpty() ? id : replayed;
    boolean repeat = windows.get(partition).repeats(known, record.offset(), record.timestamp());
    if (!repeat && !before) {
      handler.handle(id, header(record, "ce_type"), read(record));
    }
  }

  /** Whether the record is a copy that was published for another group: a replayed dead letter, or a retried record. */
  private boolean isForAnother(ConsumerRecord<byte[], byte[]> record) {
    for (String name : List.of("replay_group", "retry_group")) {
      String named = header(record, name);
      if (!named.isEmpty() && !named.equals(group)) {
        return true;
      }
    }
    return false;
  }

  private Object read(ConsumerRecord<byte[], byte[]> record) {
    try {
      return types.read(header(record, "ce_dataschema"), record.value());
    } catch (IOException unreadable) {
      // without the message of the exception, which quotes the value
      String why = unreadable.getClass().getSimpleName();
      throw new IllegalStateException(record.topic() + " " + place(record) + " cannot be read: " + why);
    }
  }

  private static String place(ConsumerRecord<byte[], byte[]> record) {
    return "partition " + record.partition() + ", offset " + record.offset();
  }

  /** The first header of this name, decoded as one character per byte: all compared attributes are ASCII. */
  private static String header(ConsumerRecord<byte[], byte[]> record, String name) {
    for (Header found : record.headers().headers(name)) {
      return new String(found.value(), StandardCharsets.ISO_8859_1);
    }
    return "";
  }
}
