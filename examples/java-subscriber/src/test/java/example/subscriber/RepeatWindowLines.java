package example.subscriber;

import java.util.Scanner;

/**
 * Reads records from stdin, one line each (id, offset, timestamp), and prints what the window decides about each. In the
 * same way, you can compare a subscriber in another language with the Python subscriber.
 */
final class RepeatWindowLines {
  private RepeatWindowLines() {}

  public static void main(String[] bounds) {
    RepeatWindow window = new RepeatWindow(Long.parseLong(bounds[0]), Long.parseLong(bounds[1]));
    try (Scanner lines = new Scanner(System.in)) {
      while (lines.hasNext()) {
        System.out.println(window.repeats(lines.next(), lines.nextLong(), lines.nextLong()));
      }
    }
  }
}
