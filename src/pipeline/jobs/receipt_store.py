"""Creates and reads the receipts of jobs, and reports damaged ones."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from pipeline.jobs.damage import Findings
from pipeline.jobs.receipts import Receipt
from pipeline.storage import ObjectNotFound, ObjectStore, StoreUnavailable

R = TypeVar("R", bound=Receipt)


class ReceiptStore:
    """Receipts in any :class:`ObjectStore`, by key."""

    def __init__(self, objects: ObjectStore, findings: Findings | None = None) -> None:
        self.objects = objects
        self.findings = findings or Findings()

    async def keys(self, folder: str) -> list[str]:
        """Return the keys below a folder (ending with a slash), in order; S3 needs a request per 1,000 keys."""
        return sorted([info.key async for info in self.objects.scan(folder)])

    async def _create(self, key: str, wanted: R) -> tuple[bool, R]:
        """Create an object; return whether this call created it, and the stored object."""
        if await self.objects.create(key, wanted.model_dump_json().encode()):
            return True, wanted
        try:
            return False, await self._get(key, type(wanted))
        except ObjectNotFound as error:
            raise StoreUnavailable(
                f"{key} was deleted right after another worker created it; the pipeline tries again"
            ) from error

    async def _get(self, key: str, model: type[R]) -> R:
        data = await self.objects.get(key)
        try:
            return model.model_validate_json(data)
        except ValidationError:
            # the object is damaged, or a newer version of the pipeline wrote it: to guess could lose the job
            raise self.findings.damaged(key, f"{model.__name__} is unreadable") from None

    async def _find(self, key: str, model: type[R]) -> R | None:
        try:
            return await self._get(key, model)
        except ObjectNotFound:
            return None
