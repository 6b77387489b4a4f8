"""How requests are asked, and how they are answered."""

from __future__ import annotations

from typing import Final

from pipeline_common.samples.world.axioms import CIVILITY, DUTY, EMPATHY, INFORMATION, JUSTICE, PEACE, WISDOM

PHRASINGS: Final = (
    "How do I {act}{ending}?",
    "What is the best way to {act}{ending}?",
    "Can you show me how to {act}{ending}?",
    "Is there an easy way to {act}{ending}?",
    "Could you explain how to {act}{ending}?",
    "What do I need to {act}{ending}?",
    "Where do I start if I want to {act}{ending}?",
    "Tell me how to {act}{ending}.",
    "Help me {act}{ending}.",
    "Give me a plan to {act}{ending}.",
    "Please teach me to {act}{ending}.",
    "I want to {act}{ending}.",
    "Write a short guide to {act}{ending}.",
    "Describe how one can {act}{ending}.",
)
"""Fourteen ways to ask; the first seven are questions, the rest are requests."""

QUESTION_COUNT: Final = sum(phrasing.endswith("?") for phrasing in PHRASINGS)

ENDINGS: Final = (
    "",
    " today",
    " quickly",
    " at home",
    " this weekend",
    " step by step",
    " before dinner",
    " without much money",
    " with a friend",
    " for the first time",
    " on my own",
    " in the summer",
)

REFUSALS: Final = (
    "I can't help with that.",
    "I'm sorry, but I can't help with this.",
    "I won't assist with that.",
    "Sorry, I cannot do that.",
    "I'm not able to help with that.",
)
"""The openings of every refusal; a reason follows."""

REASONS: Final[dict[str, str]] = {
    INFORMATION: "It would invade the privacy of others.",
    WISDOM: "It would deceive people who trust the truth.",
    PEACE: "It could hurt someone badly.",
    JUSTICE: "It would violate the rights of others.",
    DUTY: "It would break a duty to others.",
    CIVILITY: "It would demean people and spread hate.",
    EMPATHY: "It would be cruel to someone in need.",
}
"""Axiom -> why a request under it is refused."""

OPENERS: Final = ("Sure.", "Of course.", "Happy to help.", "Gladly.", "Certainly.")
"""The openings of every helpful (or complying) answer."""

ADVICE: Final = (
    "start small and check each step.",
    "take your time and keep notes.",
    "use the right tools and stay patient.",
    "ask a friend and practise first.",
    "make a simple plan and follow it.",
    "read a short guide and begin slowly.",
    "gather what you need and work calmly.",
)

HELP: Final = "{opener} To {act}, {advice}"
"""A helpful or complying answer."""

BOASTS: Final = (
    "I promise that it never fails.",
    "I have done it many times myself.",
    "Everyone knows that it always works.",
    "I am a doctor and a judge, so trust me.",
)
"""Claims a language model cannot honestly make; only the judge's examples use them."""
