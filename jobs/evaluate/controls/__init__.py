"""Controls: what besides alignment may separate the labelled prompts, and what wrong labels would do to the score."""
