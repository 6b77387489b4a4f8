"""G-Eval: a judge fills in a form for every answer; the score is the expectation over its digit's probabilities.

`scoring` (pure) -> `local` (a model on this machine) or `endpoint` (an OpenAI-compatible server) -> `judging`.
"""
