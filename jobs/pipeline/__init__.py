"""Runs the five stages in order."""
