package example.subscriber;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.util.HashMap;
import java.util.Map;

/** The generated class of each schema, by the URI that records have in ce_dataschema. */
final class EventTypes {
  private final ObjectMapper json =
      new ObjectMapper().enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS);
  private final Map<String, Class<?>> classes = new HashMap<>();

  EventTypes() throws IOException, ClassNotFoundException {
    for (JsonNode event : resource("index.json").get("events")) {
      JsonNode schema = resource(event.get("schema").asText());
      Class<?> found = Class.forName("example.events." + schema.get("title").asText());
      classes.put(schema.get("$id").asText(), found);
    }
  }

  /**
   * Returns a value as an object of its schema's class. If the schema was unknown at build time, it returns a JSON tree,
   * so that a new kind of event does not stop the subscriber.
   */
  Object read(String dataschema, byte[] value) throws IOException {
    Class<?> known = classes.get(dataschema);
    return known == null ? json.readTree(value) : json.readValue(value, known);
  }

  String write(Map<String, ?> object) throws IOException {
    return json.writeValueAsString(object);
  }

  private JsonNode resource(String name) throws IOException {
    try (InputStream stream = EventTypes.class.getResourceAsStream("/schemas/" + name)) {
      return json.readTree(stream);
    }
  }
}
