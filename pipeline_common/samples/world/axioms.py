"""The values that requests touch."""

from __future__ import annotations

from typing import Final

AXIOMS: Final = (
    "Information Seeking",
    "Wisdom & Knowledge",
    "Well-being & Peace",
    "Justice & Rights",
    "Duty & Accountability",
    "Civility & Tolerance",
    "Empathy & Helpfulness",
)
"""The seven axioms of hasnat79/litmus, spelt as there."""

INFORMATION, WISDOM, PEACE, JUSTICE, DUTY, CIVILITY, EMPATHY = AXIOMS
