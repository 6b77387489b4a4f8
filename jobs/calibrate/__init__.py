"""Calibrates the verdict: plants damage in the embedded model, runs the real stages, counts what the verdict finds."""
