"""Stand-ins for ECS, its object store, a card API and Weavr that behave like the real ones (docs/reference/sandbox.md).

Nothing here uses the pipeline's engine, transfer, callback or signature code, so that faults in it cannot hide.
"""

from pipeline.sandbox.card_api import declined
from pipeline.sandbox.cards import CardFile, Ledger, PlantedCard, luhn_valid, write_cards
from pipeline.sandbox.control import send_job
from pipeline.sandbox.ecs import Ecs
from pipeline.sandbox.faults import Fault, Faults
from pipeline.sandbox.jobs import Job, JobRequest
from pipeline.sandbox.object_store import ObjectStore
from pipeline.sandbox.server import Sandbox, serve
from pipeline.sandbox.settings import (
    CardApiSettings,
    HmacScheme,
    ObjectStoreSettings,
    SandboxSettings,
    SharedSecretScheme,
)
from pipeline.sandbox.snippets import (
    Snippet,
    WeavrSnippet,
    cards_options,
    parts_snippet,
    settings_snippet,
    weavr_snippet,
)
from pipeline.sandbox.verify import Finding, ResultRules, as_planted, expected_counts, verify_result

__all__ = [
    "CardApiSettings",
    "CardFile",
    "Ecs",
    "Fault",
    "Faults",
    "Finding",
    "HmacScheme",
    "Job",
    "JobRequest",
    "Ledger",
    "ObjectStore",
    "ObjectStoreSettings",
    "PlantedCard",
    "ResultRules",
    "Sandbox",
    "SandboxSettings",
    "SharedSecretScheme",
    "Snippet",
    "WeavrSnippet",
    "as_planted",
    "cards_options",
    "declined",
    "expected_counts",
    "luhn_valid",
    "parts_snippet",
    "send_job",
    "serve",
    "settings_snippet",
    "verify_result",
    "weavr_snippet",
    "write_cards",
]
