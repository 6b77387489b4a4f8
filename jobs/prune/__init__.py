"""Removing what no run refers to any more."""
