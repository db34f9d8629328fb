"""Pre-signed download and upload, and the host guard."""

from pipeline.transfer.errors import AddressRefused, SourceChanged, SourceRefused, UploadRefused
from pipeline.transfer.protocols import Download, Downloader, SignedUrl, SourceInfo, Uploader, UrlSource
from pipeline.transfer.rules import check_url
from pipeline.transfer.settings import HostRules, NetworkSettings, Purpose, TransferSettings
from pipeline.transfer.urls import job_deadline, redact, request_url, signed_url

__all__ = [
    "AddressRefused",
    "Download",
    "Downloader",
    "HostRules",
    "NetworkSettings",
    "Purpose",
    "SignedUrl",
    "SourceChanged",
    "SourceInfo",
    "SourceRefused",
    "TransferSettings",
    "UploadRefused",
    "Uploader",
    "UrlSource",
    "check_url",
    "job_deadline",
    "redact",
    "request_url",
    "signed_url",
]
