"""G-Eval: a judge fills in a form for every answer; the score is the expectation over its digit's probabilities.

`steps` (the evaluation steps, by the judge or fixed) and `scoring` (pure) -> `local` (a model on this machine, `shared`
by several processes) or `endpoint` (an OpenAI-compatible server, spoken to by `chat_client`) -> `judging`.
"""
