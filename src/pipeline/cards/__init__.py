"""The CSV engine: split, parse, run a processor, format. Bytes in, bytes out."""
