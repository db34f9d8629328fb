"""Finds faults in readable certificates: dates, and the order of a chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.x509 import Certificate, load_pem_x509_certificates

_SOON: Final = timedelta(days=14)
"""Warn this long before a certificate expires; most are renewed a month before."""


def read_certificates(path: Path) -> list[Certificate]:
    """Return the certificates of a PEM file; none if it cannot be read, since the code that uses it reports that."""
    try:
        return load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return []


def date_fault(certificate: Certificate, now: datetime) -> str | None:
    """Return why a certificate is not valid now, as the end of a sentence; None if it is valid."""
    if now > certificate.not_valid_after_utc:
        return f"expired at {_shown(certificate.not_valid_after_utc)}; renew it"
    if now < certificate.not_valid_before_utc:
        return f"is valid from {_shown(certificate.not_valid_before_utc)} only; check the clock of this machine"
    return None


def client_faults(chain: Sequence[Certificate], now: datetime) -> Iterator[str]:
    """Yield the reasons why a server refuses a client with this chain, as sentences without the file's name."""
    for number, certificate in enumerate(chain, start=1):
        fault = date_fault(certificate, now)
        if fault is not None:
            yield f"certificate {number} {fault}"
    for number, (issued, issuer) in enumerate(pairwise(chain), start=1):
        try:
            issued.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            yield (
                f"certificate {number + 1} is not the issuer of certificate {number}; write the client's certificate "
                "first, then each issuer"
            )


def client_doubts(chain: Sequence[Certificate], now: datetime) -> Iterator[str]:
    """Yield a warning if the client's own certificate expires soon."""
    for certificate in chain[:1]:
        end = certificate.not_valid_after_utc
        if now <= end < now + _SOON:
            yield f"certificate 1 expires at {_shown(end)}; renew it"


def authority_fault(authorities: Sequence[Certificate], now: datetime) -> str | None:
    """Return why no server is trusted, as a sentence without the file's name; None if an authority is valid."""
    faults = [date_fault(one, now) for one in authorities]
    if not authorities or None in faults:
        return None
    return f"none of its certificates is valid: certificate 1 {faults[0]}"


def authority_doubts(authorities: Sequence[Certificate], now: datetime) -> Iterator[str]:
    """Yield the authorities that are not valid, if others are."""
    faults = [date_fault(one, now) for one in authorities]
    if None not in faults:
        return
    for number, fault in enumerate(faults, start=1):
        if fault is not None:
            yield f"certificate {number} {fault}"


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
