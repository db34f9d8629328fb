"""What lies behind the input URL: a synthetic card file, or something that no integrator should take for one."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pipeline.sandbox.cards import CardFile, Ledger, write_cards

Content = Literal["cards", "html", "xml", "empty", "nothing", "utf16", "open_quote"]
"""``nothing``: no object at all. ``open_quote``: a card file whose last field has a quote that never ends."""

_HTML: Final = """<!DOCTYPE html>
<html><head><title>503 Service Unavailable</title></head>
<body><h1>Service Unavailable</h1><p>The export service is down for maintenance, please try again later.</p></body>
</html>
"""
_XML: Final = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code></Error>\n'


def write_input(path: Path, content: Content, spec: CardFile) -> Ledger | None:
    """Write the input file; return its ledger where it is a card file. Blocking: call it in a thread."""
    match content:
        case "cards":
            return write_cards(path, spec)
        case "open_quote":
            write_cards(path, spec.model_copy(update={"gzip": False}))
            with path.open("ab") as file:
                file.write(b'9999990000000000,01/30,1.00,"NOBODY')
        case "utf16":
            path.write_bytes("card_number,note\n1,two\n".encode("utf-16"))
        case "html":
            path.write_text(_HTML, encoding="utf-8")
        case "xml":
            path.write_text(_XML, encoding="utf-8")
        case "empty" | "nothing":
            path.write_bytes(b"")
    return None
