package example.subscriber;

import java.util.Scanner;

/**
 * Shows a window the records that stdin names, a line each (id, offset, timestamp), and prints what it says. Whoever
 * writes a subscriber in another language can compare it with the Python one in the same way.
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
