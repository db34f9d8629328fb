"""The parts of a job: the results of its chunks, with the manifests that decide which of them are used."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from pipeline.jobs.damage import Findings
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.part_encryption import SEALED_ENDING, PartChanged, PartCipher, Sealed
from pipeline.jobs.read_ahead import PartReads, ReadAhead
from pipeline.jobs.receipt_store import ReceiptStore
from pipeline.jobs.receipts import Checkpoint, Manifest, Plan, PlanPage, Source, SourceDiffers
from pipeline.storage import ObjectNotFound, ObjectStore, is_key

_READS_AT_ONCE: Final = 16

_INLINE_BYTES: Final = 1 << 16
"""A part up to this size may be stored in its manifest. That saves a request to write it and one to read it."""

_INLINE_PARTS: Final = 32
"""Only this many parts of a job are stored so, because UPLOAD holds all manifests in memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stored data object, for its manifest.

    Attributes:
        key: Key of the object.
        crc32: CRC-32 of the stored bytes.
        sealed: Which key encrypted it; None if it is in clear.
        inline: The bytes, if the manifest holds them and there is no object.
    """

    key: str
    crc32: int
    sealed: Sealed | None
    inline: bytes | None = None


class PartStore(ReceiptStore):
    """Parts in any :class:`ObjectStore`.

    Args:
        objects: The store.
        cipher: Encrypts and decrypts parts. By default it has no key. Then parts can be listed and deleted, and parts
            in clear can be read.
        findings: Logs damage; by default a new one.

    Attributes:
        inline_bytes: Parts up to this size are stored in their manifests.
    """

    inline_bytes: int = _INLINE_BYTES

    def __init__(
        self, objects: ObjectStore, cipher: PartCipher | None = None, findings: Findings | None = None
    ) -> None:
        super().__init__(objects, findings)
        self.cipher = cipher or PartCipher()

    async def checkpoint(self, ref: JobRef, plan: str, generation: str | None = None) -> Checkpoint | None:
        """Return the most complete generation of parts of the same plan (or the named one); None if there is none."""
        numbers = await self.finished_chunks(ref)
        for found in sorted(numbers, key=lambda name: len(numbers[name]), reverse=True):
            if generation not in (None, found):
                continue
            source = await self._find(f"{ref.parts(found)}source.json", Source)
            if source is not None and source.plan == plan:
                manifests = await self.manifests(ref, found, sorted(numbers[found]))
                return Checkpoint(found, source, {one.number: one for one in manifests})
        return None

    async def finished_chunks(self, ref: JobRef) -> dict[str, set[int]]:
        """Return the numbers of the chunks that have a manifest, by generation."""
        return self.chunks_among(ref, await self.keys(ref.parts()))

    @staticmethod
    def chunks_among(ref: JobRef, keys: Sequence[str]) -> dict[str, set[int]]:
        """Return the numbers of the chunks whose manifests are among the keys, by generation."""
        numbers: dict[str, set[int]] = {}
        for key in keys:
            generation, _, name = key.removeprefix(ref.parts()).partition("/")
            stem = name.removesuffix(".json")
            if stem.isdecimal() and key == ref.manifest(generation, int(stem)):
                numbers.setdefault(generation, set()).add(int(stem))
        return numbers

    async def record_source(self, ref: JobRef, generation: str, source: Source) -> None:
        """Record the source of a generation, before its first manifest."""
        await self._create(f"{ref.parts(generation)}source.json", source)

    async def source(self, ref: JobRef, generation: str) -> Source | None:
        """Return the source of a generation, if it is recorded."""
        return await self._find(f"{ref.parts(generation)}source.json", Source)

    async def plan(self, ref: JobRef, generation: str) -> Plan | None:
        """Return the plan of a generation whose chunks are shared, if it is complete."""
        return await self._find(ref.plan(generation), Plan)

    async def record_plan(self, ref: JobRef, generation: str, plan: Plan) -> Plan:
        """Store the plan once all chunks are known; return the stored one, which may be an earlier one."""
        return (await self._create(ref.plan(generation), plan))[1]

    async def plan_page(self, ref: JobRef, generation: str, number: int) -> PlanPage | None:
        """Return a page of a plan, if it is recorded."""
        return await self._find(ref.plan_page(generation, number), PlanPage)

    async def record_plan_page(self, ref: JobRef, generation: str, number: int, page: PlanPage) -> PlanPage:
        """Store a page of a plan; return the stored one, which may be an earlier one."""
        return (await self._create(ref.plan_page(generation, number), page))[1]

    async def record_source_changed(self, ref: JobRef, generation: str, finding: SourceDiffers) -> None:
        """Record that the input is not the generation's file. A repeat changes nothing."""
        await self._create(ref.source_changed(generation), finding)

    async def manifest(self, ref: JobRef, generation: str, number: int) -> Manifest | None:
        """Return the manifest of a chunk, if it exists."""
        return await self._find(ref.manifest(generation, number), Manifest)

    async def finished_in(self, ref: JobRef, generation: str, chunks: int) -> tuple[set[int], bool]:
        """Return which chunks of a generation have a manifest, and whether a worker found another file.

        Only names that begin as those of its chunks are listed: the folders of their starts would cost more.

        Args:
            ref: The job.
            generation: The generation.
            chunks: How many chunks it has.
        """
        folder, numbers = ref.parts(generation), set[int]()
        for first_digit in range((chunks - 1) // 10**7 + 1):  # numbers have eight digits
            async for info in self.objects.list(f"{folder}{first_digit}"):
                stem = info.key.removeprefix(folder).removesuffix(".json")
                if stem.isdecimal() and info.key == ref.manifest(generation, int(stem)):
                    numbers.add(int(stem))
        try:
            await self.objects.get(ref.source_changed(generation))
        except ObjectNotFound:
            return numbers, False
        return numbers, True

    async def write_part(self, ref: JobRef, generation: str, number: int, data: bytes) -> Part:
        """Store a chunk's result bytes under a unique name, encrypted unless that is switched off.

        A small part is not stored here: the manifest will contain it.
        """
        if number < _INLINE_PARTS and len(data) <= self.inline_bytes:
            key, stored, sealed = ref.manifest(generation, number), data, None
            if self.cipher.encrypts:
                stored, sealed = self.cipher.seal(key, data)
            return Part(key, zlib.crc32(stored), sealed, stored)
        key = f"{ref.parts(generation)}{number:08d}-{uuid4().hex}.csv"
        if not self.cipher.encrypts:
            await self.objects.create(key, data)
            return Part(key, zlib.crc32(data), None)
        key += SEALED_ENDING
        stored, sealed = await asyncio.to_thread(self.cipher.seal, key, data)
        await self.objects.create(key, stored)
        return Part(key, zlib.crc32(stored), sealed)

    async def record_manifest(self, ref: JobRef, generation: str, manifest: Manifest) -> bool:
        """Make a part one of the result; return False if the result has another worker's part for this chunk."""
        won, existing = await self._create(ref.manifest(generation, manifest.number), manifest)
        return won or existing.nonce == manifest.nonce

    async def drop_part(self, part: Part) -> None:
        """Delete a data object that is not used, because another worker decided its chunk."""
        if part.inline is None:
            await self.objects.delete(part.key)

    async def drop_chunk(self, ref: JobRef, generation: str, manifest: Manifest) -> None:
        """Delete the part and the manifest of one chunk."""
        await self.delete_known(sorted({ref.manifest(generation, manifest.number), manifest.data}))

    async def manifests(self, ref: JobRef, generation: str, numbers: Sequence[int]) -> list[Manifest]:
        """Return the manifests of the given chunks, in that order.

        Raises:
            JobDamaged: One is unreadable or missing.
        """
        limit = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(number: int) -> Manifest:
            async with limit:
                key = ref.manifest(generation, number)
                try:
                    return await self._get(key, Manifest)
                except ObjectNotFound:
                    raise self.findings.damaged(key, f"the record of chunk {number} is missing") from None

        return list(await asyncio.gather(*map(read, numbers)))

    async def stream(
        self, manifests: Sequence[Manifest], ahead: ReadAhead | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the result bytes of the parts in order; memory use does not grow with their size.

        It yields the last piece of a part only after the whole part was verified. So a receiver that knows the length
        never gets a complete damaged result.

        Args:
            manifests: Those of the parts.
            ahead: Bounds what is read before its turn. None: each part is read in its turn.

        Raises:
            JobDamaged: A part differs from its manifest, or is missing.
            PartKeyUnavailable: The key of a part is not configured; raised before the first piece.
        """
        self.cipher.require(one.sealed for one in manifests)
        async with (ahead or ReadAhead(parts=0)).over(manifests, self.objects.stream) as reads:
            for manifest in manifests:
                try:
                    async with aclosing(self._part(manifest, reads)) as pieces:
                        async for piece in pieces:
                            yield piece
                except ObjectNotFound:
                    raise self.findings.damaged(
                        manifest.data, f"the part of chunk {manifest.number} is missing"
                    ) from None
                except PartChanged:
                    raise self.findings.damaged(
                        manifest.data, f"the part of chunk {manifest.number} was changed"
                    ) from None

    async def _part(self, manifest: Manifest, reads: PartReads) -> AsyncGenerator[bytes, None]:
        """Yield the result bytes of one part. Hold back the last piece until the whole part is verified."""
        unsealing = self.cipher.unsealed(manifest.data, manifest.sealed) if manifest.sealed else None
        crc, held = 0, b""
        async with aclosing(_stored(manifest, reads)) as stored:
            async for piece in stored:
                crc = zlib.crc32(piece, crc)
                for plain in unsealing.feed(piece) if unsealing else (piece,):
                    if held:
                        yield held
                    held = plain
        last = unsealing.finish() if unsealing else b""
        if crc != manifest.crc32:
            raise PartChanged
        for plain in (held, last):
            if plain:
                yield plain

    async def drop_parts(self, ref: JobRef, *, dry_run: bool = False) -> int:
        """Delete all parts and manifests of an attempt (its card data); return the number of these objects."""
        keys = await self.keys(ref.parts())
        await self.delete_known([] if dry_run else keys)
        return len(keys)

    async def delete_known(self, keys: Sequence[str]) -> None:
        """Delete objects, except those with a key that no store of the pipeline takes."""
        known = []
        for key in keys:
            if is_key(key):
                known.append(key)
            else:
                self.findings.foreign(key)
        await self.objects.delete_all(known)


async def _stored(manifest: Manifest, reads: PartReads) -> AsyncGenerator[bytes, None]:
    if manifest.inline is not None:
        yield manifest.inline
        return
    async with aclosing(reads.stored(manifest)) as pieces:
        async for piece in pieces:
            yield piece
