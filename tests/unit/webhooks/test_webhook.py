"""Which source a path belongs to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.webhooks.testing import ecs_webhook, weavr_webhook
from pipeline.webhooks.webhook import Routes

WEAVR = weavr_webhook()
ECS = ecs_webhook()
NESTED = replace(ecs_webhook("nested"), path="/webhooks/weavr/acme/managed_cards/own")
ROUTES = Routes([ECS, WEAVR, NESTED])


def test_a_source_that_takes_no_paths_below_is_found_by_its_exact_path_alone() -> None:
    assert ROUTES.find("/webhooks/ecs/acme") == (ECS, "")
    assert ROUTES.find("/webhooks/ecs/acme/x") == (None, "")
    assert ROUTES.find("/webhooks/ecs/acme/") == (None, "")


@pytest.mark.parametrize(
    ("path", "behind"),
    [
        ("/webhooks/weavr/acme", ""),
        ("/webhooks/weavr/acme/", "/"),
        ("/webhooks/weavr/acme/managed_cards/watch", "/managed_cards/watch"),
        ("/webhooks/weavr/acme//x", "//x"),
        ("/webhooks/weavr/acme/" + "a/" * 2000, "/" + "a/" * 2000),
    ],
)
def test_a_source_may_take_every_path_below_its_own(path: str, behind: str) -> None:
    assert ROUTES.find(path) == (WEAVR, behind)


@pytest.mark.parametrize("path", ["/webhooks/weavr/acmex/watch", "/webhooks/weavr", "/webhooks", "", "/"])
def test_a_path_of_nobody_has_no_source(path: str) -> None:
    assert ROUTES.find(path) == (None, "")


def test_the_longest_path_counts() -> None:
    assert ROUTES.find("/webhooks/weavr/acme/managed_cards/own") == (NESTED, "")
    assert ROUTES.find("/webhooks/weavr/acme/managed_cards/own/x") == (WEAVR, "/managed_cards/own/x")


def test_the_rest_of_the_path_can_always_be_encoded() -> None:
    """Bytes that are no UTF-8 reach us as halves of surrogate pairs, which no header of a record can hold."""
    source, behind = ROUTES.find("/webhooks/weavr/acme/\udcff/é")
    assert (source, behind.encode()) == (WEAVR, b"/?/\xc3\xa9")
