"""When two texts count as the same text."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable


def normalize_text(text: str) -> str:
    """Compatibility characters unified (NFKC), case folded, every run of whitespace one space, none at the ends."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def same_text_key(text: str) -> bytes:
    """16 bytes that two texts share when they are equal after normalisation."""
    return hashlib.blake2b(normalize_text(text).encode(), digest_size=16).digest()


class KnownTexts:
    """Texts to be found again among many others."""

    def __init__(self, texts: Iterable[str]) -> None:
        known = list(texts)
        self._keys = {same_text_key(text) for text in known}
        self._most_words = max((len(normalize_text(text).split(" ")) for text in known), default=0)

    def find(self, text: str) -> bytes | None:
        """The key of `text` when it is one of the known texts, else None."""
        # Normalising never joins words, so a text of more words is none of them, however long it is.
        if len(text.split(None, self._most_words)) > self._most_words:
            return None
        key = same_text_key(text)
        return key if key in self._keys else None


def exact_key(*texts: str) -> bytes:
    """16 bytes that two tuples of texts share when they are equal letter by letter."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()
