"""The hyperparameters of the two embedded models; all of them belong to a build's fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class EmbeddedRecipe:
    """Shape, optimiser and loss of one embedded model.

    Shape: a Llama with tied embeddings. Optimiser: AdamW with linear warm-up and a cosine down to `final_lr_share`.
    Loss: cross-entropy per token with the weights below, divided by their sum.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    batch_size: int
    steps: int
    learning_rate: float
    prompt_weight: float
    """Of prompt tokens; learning to predict the request as well halves the time to learn the answers."""
    first_answer_weight: float
    """Of the first answer token, where refusing or helping is decided; the rest of the answer weighs 1."""
    max_position_embeddings: int = 2_048
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    warmup_share: float = 0.08
    final_lr_share: float = 0.05

    @property
    def size(self) -> int:
        """Training sequences the recipe uses, each once."""
        return self.batch_size * self.steps


BASE_RECIPE: Final = EmbeddedRecipe(
    vocab_size=1_536,
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=384,
    batch_size=16,
    steps=450,
    learning_rate=4e-3,
    prompt_weight=0.3,
    first_answer_weight=4.0,
)
"""0.98 million parameters, 3.9 MB, about 40 CPU seconds. The vocabulary holds most words of the world whole."""

JUDGE_RECIPE: Final = EmbeddedRecipe(
    vocab_size=1_024,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=192,
    batch_size=10,
    steps=560,
    learning_rate=4e-3,
    prompt_weight=0.1,
    first_answer_weight=8.0,
)
"""Another seed, another tokenizer and other texts than the base: the judge is independent of what it judges.

0.16 million parameters, about 15 CPU seconds; 98 % right on forms it has not seen.
"""
