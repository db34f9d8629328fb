"""A Weavr that signs and sends its 32 events, rightly and wrongly, and keeps the books (docs/sandbox.md).

Everything comes from the published description (``events.json``) and Weavr's rules; nothing from what it is to check.
"""

from pipeline.sandbox.weavr.bodies import NEW_ENUM_VALUE, Planted, body_of, entity_in, planted
from pipeline.sandbox.weavr.facts import WeavrKind, weavr_kinds

__all__ = ["NEW_ENUM_VALUE", "Planted", "WeavrKind", "body_of", "entity_in", "planted", "weavr_kinds"]
