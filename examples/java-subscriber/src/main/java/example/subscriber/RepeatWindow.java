package example.subscriber;

import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The repeat rule of docs/reference/subscribers.md: a record is a repeat if the last record of its partition with the same ce_id is
 * at most so many offsets before it and at most so much older. The decision depends on the log alone.
 *
 * <p>Use one window per partition, and pass the records in the order of their offsets. Memory holds at most
 * {@code records} ids.
 */
final class RepeatWindow {
  static final long RECORDS = 100_000;
  static final long MILLISECONDS = 6 * 60 * 60 * 1000L;

  private record Seen(long offset, long timestamp) {}

  private final long records;
  private final long milliseconds;
  private final LinkedHashMap<String, Seen> last = new LinkedHashMap<>();
  private long cuts;

  RepeatWindow() {
    this(RECORDS, MILLISECONDS);
  }

  RepeatWindow(long records, long milliseconds) {
    this.records = records;
    this.milliseconds = milliseconds;
  }

  /** Remembers a record, and returns whether it is a repeat. */
  boolean repeats(String id, long offset, long timestamp) {
    forget(offset, timestamp);
    Seen before = last.remove(id); // so that the order stays that of offsets
    last.put(id, new Seen(offset, timestamp));
    return before != null && timestamp - before.timestamp <= milliseconds;
  }

  /** How many ids were forgotten early because the window was full. */
  long cuts() {
    return cuts;
  }

  private void forget(long offset, long timestamp) {
    for (Iterator<Map.Entry<String, Seen>> oldest = last.entrySet().iterator(); oldest.hasNext(); ) {
      Seen seen = oldest.next().getValue();
      if (offset - seen.offset <= records) {
        return;
      }
      if (timestamp - seen.timestamp <= milliseconds) {
        cuts++;
      }
      oldest.remove();
    }
  }
}
