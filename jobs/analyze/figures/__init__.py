"""The report's figures: each file one figure, drawn from the measures alone."""

from __future__ import annotations
