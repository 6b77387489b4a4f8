"""The environment stage."""
