"""The only common room with torch. Import its modules inside functions, never at the top of a stage."""
