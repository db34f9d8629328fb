"""What operators set for file transfers, and what is the same everywhere."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.jobs.transfer import TransferParameters, TransferSettings


def test_parameters_hold_every_setting_and_the_constants() -> None:
    settings = TransferSettings(
        read_timeout_seconds=1,
        min_bytes_per_second=2,
        max_not_found_tries=3,
        read_ahead_bytes=65_537,
        idle_close_seconds=4,
        expect_continue=False,
        etag_is_md5=False,
    )
    made = settings.parameters()
    assert settings.model_fields_set == set(TransferSettings.model_fields)  # a new setting belongs into this test
    assert {name: getattr(made, name) for name in settings.model_fields_set} == settings.model_dump()
    assert (made.connect_timeout_seconds, made.rate_window_seconds) == (10, 60)
    assert made.retry == TransferParameters().retry


@pytest.mark.parametrize("key", ["connect_timeout_seconds", "rate_window_seconds", "retry"])
def test_constants_cannot_be_set(key: str) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        TransferSettings.model_validate({key: 1})
