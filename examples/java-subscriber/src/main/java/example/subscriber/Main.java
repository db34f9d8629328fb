package example.subscriber;

import example.events.ManagedCardsAuthorisationEvent;
import example.events.StepupEvent;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Prints one line of JSON for each event that it handles.
 *
 * <p>{@code --bootstrap HOST:PORT --group GROUP --topic TOPIC --max-idle-seconds N}
 */
final class Main {
  private static final List<String> OPTIONS = List.of("--bootstrap", "--group", "--topic", "--max-idle-seconds");

  private Main() {}

  public static void main(String[] arguments) throws Exception {
    Map<String, String> options = options(arguments);
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    EventTypes types = new EventTypes();
    Subscriber.Handler handler =
        (id, type, event) -> {
          Map<String, Object> line = new LinkedHashMap<>();
          line.put("id", id);
          line.put("type", type);
          line.put("class", event.getClass().getSimpleName());
          if (event instanceof ManagedCardsAuthorisationEvent authorisation) {
            line.put("authorisation", authorisation.getAuthorisationType());
            line.put("card", authorisation.getId().getId());
          } else if (event instanceof StepupEvent stepup) {
            line.put("credential", stepup.getCredential().getId()); // its token is for no line
          }
          out.println(types.write(line));
        };
    try (Subscriber subscriber =
        new Subscriber(
            options.get("--bootstrap"), options.get("--group"), options.get("--topic"), types, handler)) {
      subscriber.run(Duration.ofSeconds(Long.parseLong(options.get("--max-idle-seconds"))));
    }
  }

  private static Map<String, String> options(String[] arguments) {
    Map<String, String> found = new HashMap<>();
    for (int at = 0; at + 1 < arguments.length; at += 2) {
      found.put(arguments[at], arguments[at + 1]);
    }
    if (arguments.length != 2 * OPTIONS.size() || !found.keySet().containsAll(OPTIONS)) {
      System.err.println("usage: " + String.join(" VALUE ", OPTIONS) + " VALUE");
      System.exit(2);
    }
    return found;
  }
}
