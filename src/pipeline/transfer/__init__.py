"""Pre-signed download and upload, and the host guard."""

from pipeline.transfer.download import HttpDownloader
from pipeline.transfer.errors import AddressRefused, SourceChanged, SourceRefused, UploadRefused
from pipeline.transfer.guard import open_session
from pipeline.transfer.opening import Transfers, open_transfers
from pipeline.transfer.protocols import Download, Downloader, SignedUrl, SourceInfo, Uploader, UrlSource
from pipeline.transfer.rules import check_url
from pipeline.transfer.settings import HostRules, NetworkSettings, Purpose, TransferSettings
from pipeline.transfer.upload import MAX_PUT_BYTES, HttpUploader
from pipeline.transfer.urls import job_deadline, redact, request_url, signed_url

__all__ = [
    "MAX_PUT_BYTES",
    "AddressRefused",
    "Download",
    "Downloader",
    "HostRules",
    "HttpDownloader",
    "HttpUploader",
    "NetworkSettings",
    "Purpose",
    "SignedUrl",
    "SourceChanged",
    "SourceInfo",
    "SourceRefused",
    "TransferSettings",
    "Transfers",
    "UploadRefused",
    "Uploader",
    "UrlSource",
    "check_url",
    "job_deadline",
    "open_session",
    "open_transfers",
    "redact",
    "request_url",
    "signed_url",
]
