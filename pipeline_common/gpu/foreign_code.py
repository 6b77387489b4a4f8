"""Models and tokenizers that bring code of their own: it is never run, and nobody is asked whether to run it.

Without `trust_remote_code=False` transformers would ask whoever sits at the terminal, and run it after a yes.
"""

from __future__ import annotations


def describe_loading_error(error: Exception) -> str:
    """What transformers said, except where it advises to let the code run."""
    if "trust_remote_code" in str(error):
        return (
            "it needs code of its own, which is never run here; expected an architecture and a tokenizer that "
            "transformers itself knows: choose another model"
        )
    return str(error)
