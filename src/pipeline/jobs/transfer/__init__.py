"""Download from and upload to pre-signed URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.jobs.transfer.protocols import Download, Downloader, SignedUrl, SourceInfo, Uploader, UrlSource
from pipeline.jobs.transfer.settings import TransferParameters, TransferSettings
from pipeline.on_demand import on_demand

if TYPE_CHECKING:
    from pipeline.jobs.transfer.download import HttpDownloader
    from pipeline.jobs.transfer.failures import SourceChanged, SourceRefused, UploadRefused
    from pipeline.jobs.transfer.transfers import Transfers, open_transfers
    from pipeline.jobs.transfer.upload import MAX_PUT_BYTES, HttpUploader
    from pipeline.jobs.transfer.urls import job_deadline, signed_url
else:
    __getattr__ = on_demand(
        __name__,
        download="HttpDownloader",
        failures="SourceChanged SourceRefused UploadRefused",
        transfers="Transfers open_transfers",
        upload="MAX_PUT_BYTES HttpUploader",
        urls="job_deadline signed_url",
    )

__all__ = [
    "MAX_PUT_BYTES",
    "Download",
    "Downloader",
    "HttpDownloader",
    "HttpUploader",
    "SignedUrl",
    "SourceChanged",
    "SourceInfo",
    "SourceRefused",
    "TransferParameters",
    "TransferSettings",
    "Transfers",
    "UploadRefused",
    "Uploader",
    "UrlSource",
    "job_deadline",
    "open_transfers",
    "signed_url",
]
