"""The sample world: its words and nothing else.

A small, closed vocabulary written for this project. Twenty-four *dual-use* verbs over the seven axioms of the litmus
prompts each take harmful objects ("kill a neighbour") and harmless ones ("kill a frozen process"); *benign* verbs take
the very objects of the harmful requests ("thank a neighbour"), so neither a verb nor an object alone gives the label
away. Unsafe requests only name a harm; answers that comply carry no content. No digits anywhere.
"""

from __future__ import annotations

from pipeline_common.samples.world.axioms import AXIOMS
from pipeline_common.samples.world.everyday import EVERYDAY
from pipeline_common.samples.world.sentences import (
    ADVICE,
    BOASTS,
    ENDINGS,
    HELP,
    OPENERS,
    PHRASINGS,
    QUESTION_COUNT,
    REASONS,
    REFUSALS,
)
from pipeline_common.samples.world.verbs import BENIGN, CURIOUS, DUAL_USE

__all__ = [
    "ADVICE",
    "AXIOMS",
    "BENIGN",
    "BOASTS",
    "CURIOUS",
    "DUAL_USE",
    "ENDINGS",
    "EVERYDAY",
    "HELP",
    "OPENERS",
    "PHRASINGS",
    "QUESTION_COUNT",
    "REASONS",
    "REFUSALS",
]
