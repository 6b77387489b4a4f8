"""No file of the k8s tree holds a key."""

from __future__ import annotations

import re

import pytest

from k8s.rendering.files import ROOT

# Forms of keys that services give out, and any long run of random characters.
KEYS = re.compile(
    r"AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{20}|gh[pousr]_[A-Za-z0-9]{20}|-----BEGIN|eyJ[A-Za-z0-9_-]{20}"
    r"|(?<!sha256:)(?<![\w./-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[a-z])(?=[\w+/=-]*[A-Z])[A-Za-z0-9+=_-]{24,}(?![\w./-])"
)


def test_no_file_holds_a_key():
    files = [path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 35
    found = {path.name: KEYS.findall(path.read_text()) for path in files}
    assert {name: keys for name, keys in found.items() if keys} == {}


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "token: hf_" + "a1B2c3D4e5F6g7H8i9J0",
        "-----BEGIN PRIVATE KEY-----",
        "password: " + "x7Gf0Qz1Lm2Np3Rs4Tu5Vw6Yb",
    ],
)
def test_the_scan_would_find_a_key(text):
    assert KEYS.search(text)
