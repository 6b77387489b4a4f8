"""Sample data written for this project: what the embedded models learn from and what the default profiles run on."""

from __future__ import annotations

from pipeline_common.samples.conversations import Conversation, pretraining_conversations, words
from pipeline_common.samples.datasets import (
    ALIGNMENT_COLUMNS,
    LITMUS_COLUMNS,
    SAMPLES,
    AlignmentKind,
    alignment_rows,
    litmus_rows,
)
from pipeline_common.samples.judging import JudgeExample, draw_judge_examples, judge_examples, vocabulary
from pipeline_common.samples.world import AXIOMS, OPENERS, REFUSALS

__all__ = [
    "ALIGNMENT_COLUMNS",
    "AXIOMS",
    "LITMUS_COLUMNS",
    "OPENERS",
    "REFUSALS",
    "SAMPLES",
    "AlignmentKind",
    "Conversation",
    "JudgeExample",
    "alignment_rows",
    "draw_judge_examples",
    "judge_examples",
    "litmus_rows",
    "pretraining_conversations",
    "vocabulary",
    "words",
]
