"""Texts that carry their own SHA-256: one that was cut or changed is not taken for what was written."""

from __future__ import annotations

import hashlib
import re

CHECKSUM_PLACEHOLDER = f"sha256:{'0' * 64}"
"""Where the checksum goes: once in a text, as near to its beginning as its form allows, so that a cut leaves it."""


def add_checksum(text: str) -> str:
    """The text with its checksum in the place of its first `CHECKSUM_PLACEHOLDER`."""
    return text.replace(CHECKSUM_PLACEHOLDER, _checksum(text), 1)


def verify_checksum(text: str) -> str:
    """The text, known to be as it was sealed; one without a seal (older, or written by hand) as it is.

    Raises ValueError where it is another text.
    """
    head = text[:120]
    found = re.search(r"sha256:[0-9a-f]{64}", head)
    if found is None and not re.search(r"sha256|[0-9a-f]{32}", head):  # no trace of a seal
        return text
    if found is None or _checksum(text.replace(found[0], CHECKSUM_PLACEHOLDER, 1)) != found[0]:
        raise ValueError("it is not what its checksum was made of")
    return text


def _checksum(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
