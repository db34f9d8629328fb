"""Checks a file against its announcement and against the limits of an upload."""

from __future__ import annotations

from typing import Final

import structlog

from pipeline.errors import PermanentError
from pipeline.jobs.announcements import JobRules
from pipeline.jobs.csv_engine import Chunk, Layout
from pipeline.jobs.receipts import Announcement, Source
from pipeline.jobs.transfer import MAX_PUT_BYTES

log = structlog.get_logger(__name__)

_LEAST_ADDED: Final = len(",ok,")
"""The result adds at least this many bytes to a record: the status, an empty message, two delimiters."""


class FileChecks:
    """The checks of one file. Each raises a PermanentError that says what to do."""

    def __init__(self, rules: JobRules, announcement: Announcement) -> None:
        self._policies = rules.policies
        self._announced = announcement.request.record_count

    def size(self, source: Source, layout: Layout) -> None:
        """Fail before the first card if the result would be too large to upload."""
        if source.encoding != "identity" or source.size is None or layout.dropped:
            return
        check_result_size(source.size + self._announced * _LEAST_ADDED)

    def chunk(self, chunk: Chunk) -> None:
        """Fail at the first record beyond the announced count, before more cards are processed."""
        announced = self._announced
        if self._policies.record_count_mismatch == "fail" and chunk.end.record > announced:
            raise PermanentError(
                "record_count_mismatch",
                f"The file holds more records than announced: record_count is {announced}, and record "
                f"{announced + 1} exists. Announce the number of data records, not counting the header.",
            )

    def totals(self, records: int, *, failed: int) -> None:
        """Check the whole file."""
        policies, announced = self._policies, self._announced
        if records == 0 and announced > 0:
            if policies.empty_file == "fail":
                raise PermanentError(
                    "file_empty", f"The file holds no data record, but record_count announces {announced}."
                )
            return
        if records != announced:
            if policies.record_count_mismatch == "fail":
                raise PermanentError(
                    "record_count_mismatch",
                    f"The file holds {records} records, but record_count announces {announced}. "
                    "Announce the number of data records, not counting the header.",
                )
            log.warning("record_count_mismatched", announced=announced, records=records)
        if records and failed / records > policies.max_failed_share:
            raise PermanentError(
                "too_many_failed_cards",
                f"{failed} of {records} cards failed, more than the agreed share of {policies.max_failed_share:.1%}; "
                "no result was uploaded.",
            )


def check_result_size(size: int) -> None:
    """Check that a result of this size can be uploaded.

    Raises:
        PermanentError: It is too large for one upload.
    """
    if size > MAX_PUT_BYTES:
        raise PermanentError(
            "result_too_large",
            f"The result would be at least {size} bytes, but one upload takes at most {MAX_PUT_BYTES} bytes (5 GB). "
            "Split the batch into several jobs.",
        )
