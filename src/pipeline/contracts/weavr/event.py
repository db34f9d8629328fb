"""What all of Weavr's events have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class WeavrEvent(BaseModel):
    """One event, leniently: unknown fields and enum values survive. Its fields are named as on the wire."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)
