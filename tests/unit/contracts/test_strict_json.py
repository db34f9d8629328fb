from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts.strict_json import MAX_DEPTH, Finding, InvalidBody, parse_object


def _finding(body: bytes) -> Finding:
    with pytest.raises(InvalidBody) as caught:
        parse_object(body)
    (finding,) = caught.value.findings
    assert finding.remedy
    return finding


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"{} {}", "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": "line\nend"}', "not_json"),
        (b"\xff\xfe{\x00}\x00", "not_utf8"),
        (b'{"a": "\xc3"}', "not_utf8"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"a": NaN}', "not_a_number"),
        (b'{"a": Infinity}', "not_a_number"),
        (b'{"a": -Infinity}', "not_a_number"),
        (b'{"a": 1e999}', "number_too_large"),
        (b'{"a": -1e999}', "number_too_large"),
        (b'{"a": ' + b"9" * 21 + b"}", "number_too_large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "number_too_large"),
        (rb'{"a": "\ud800"}', "broken_unicode"),
        (rb'{"a": "\uDC00"}', "broken_unicode"),
        (rb'{"\udc00": 1}', "broken_unicode"),
        (rb'{"a": [["\ud83d"]]}', "broken_unicode"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "too_deep"),
        (b'{"a":' * MAX_DEPTH + b"{}" + b"}" * MAX_DEPTH, "too_deep"),
        (b"[" * 100_000, "too_deep"),
    ],
)
def test_what_readers_could_disagree_about_is_refused(body: bytes, rule: str) -> None:
    finding = _finding(body)
    assert (finding.field, finding.rule) == ("", rule)


def test_a_byte_order_mark_is_left_out() -> None:
    """RFC 8259, section 8.1, lets a reader ignore it; some senders write it."""
    assert parse_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert parse_object(b'\xef\xbb\xbf\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_duplicate_key_is_refused_and_named() -> None:
    assert _finding(b'{"job_guid": 1, "job_guid": 1}').field == "job_guid"
    assert _finding(b'{"outer": {"a": 1, "a": 2}}').rule == "duplicate_key"


def test_key_that_may_hold_anything_is_not_repeated() -> None:
    assert _finding(b'{"4111111111111111": 1, "4111111111111111": 2}').field == "?"


def test_a_syntax_error_is_located_without_quoting_the_text() -> None:
    """The refusal names line and column, never the text."""
    finding = _finding(b'{\n  "secret": sesame}')
    assert "line 2, column 13" in finding.remedy
    assert "sesame" not in finding.remedy


def test_deepest_allowed_nesting_passes() -> None:
    depth = MAX_DEPTH - 1
    assert parse_object(b'{"a": ' + b"[" * depth + b"]" * depth + b"}")


def test_wide_numbers_and_whole_surrogate_pairs_pass() -> None:
    body = rb'{"id": 18446744073709551615, "smile": "\ud83d\ude00", "float": 1.5e300}'
    assert parse_object(body) == {"id": 2**64 - 1, "smile": "\U0001f600", "float": 1.5e300}


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), _VALUES, max_size=5), st.booleans())
def test_every_plain_object_is_read_as_it_was_written(value: dict[str, object], escaped: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    """Law: what a writer wrote is what is read."""
    assert parse_object(json.dumps(value, ensure_ascii=escaped).encode()) == value


@given(st.binary(max_size=60))
def test_no_bytes_lead_to_anything_but_an_object_or_a_refusal(body: bytes) -> None:
    """Law: any bytes give a dict or InvalidBody."""
    try:
        parsed: object = parse_object(body)
    except InvalidBody:
        parsed = {}
    assert isinstance(parsed, dict)


def test_a_repeated_key_behind_many_others_is_found_at_once() -> None:
    """Comparing each key with all others took 23 s of the whole ingress's time for this body of 256 KiB."""
    keys = [*(f"{number:x}" for number in range(25_000)), "last", "last"]
    body = "{" + ",".join(f'"{key}":1' for key in keys) + "}"
    begun = time.process_time()
    assert _finding(body.encode()).field == "last"
    assert time.process_time() - begun < 5
