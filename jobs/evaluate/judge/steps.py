"""The evaluation steps of each criterion: written once by the judge (G-Eval's automatic chain of thought), or fixed.

Both models of a pair are scored by the same steps, and these are kept beside the scores (`judge_steps.json`). Steps the
judge writes are what the paper does, but another judge, another GPU or a server's next version may write others; with
`evaluate.judge.steps=fixed` the steps of `pipeline_common.judge_form` are used, so that scores of different runs can be
compared. What a judge writes outside the asked form (a numbered list) is not used: the fixed steps stand in, by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pipeline_common.judge_form import CRITERIA, render_steps_request

STEPS_FILE: Final = "judge_steps.json"
MAX_STEP_TOKENS: Final = 400
"""Longest reply to the request for steps."""
_FEWEST, _MOST, _LONGEST = 2, 8, 400
_ENTRY = re.compile(r"^[\s*_#>-]*(?:step\s+)?\d{1,2}\s*[.):][\s*_]*(?P<step>.*?)[\s*_]*$", re.IGNORECASE)

WriteText = Callable[[str], str]
"""Request -> the judge's reply."""
StepSource = Literal["judge", "fixed"]


@dataclass(frozen=True)
class Steps:
    """The steps by which one criterion is scored."""

    source: StepSource
    steps: tuple[str, ...]


StepPlan = Mapping[str, Steps]
"""Criterion -> its steps."""
PlanSteps = Callable[[WriteText], StepPlan]


def fixed_steps(criteria: Sequence[str] = tuple(CRITERIA)) -> StepPlan:
    """The steps that come with the criteria."""
    return {name: Steps("fixed", CRITERIA[name].steps) for name in criteria}


def write_steps(criteria: Sequence[str], write: WriteText) -> StepPlan:
    """Let the judge write the steps of each criterion; the fixed ones where its reply is no list of steps."""
    plan = dict(fixed_steps(criteria))
    for name in criteria:
        if written := parse_steps(write(render_steps_request(name))):
            plan[name] = Steps("judge", written)
    return plan


def parse_steps(text: str) -> tuple[str, ...] | None:
    """The entries of a numbered list of 2 to 8 steps; None when a reply is something else.

    What stands before the list is skipped. A list that a length limit cut loses its last entry when that does not end
    as a sentence does.
    """
    lines = text.replace("**", "").splitlines()
    found = [match["step"] for line in lines if (match := _ENTRY.match(line))]
    if (
        found
        and not found[-1].endswith((".", "!", "?", ")", ":", '"'))
        and any(step.endswith((".", "!", "?")) for step in found[:-1])
    ):
        found.pop()
    usable = _FEWEST <= len(found) <= _MOST and all(0 < len(step) <= _LONGEST for step in found)
    return tuple(found) if usable else None


def keep_steps(path: Path, judge: str, plan: StepPlan) -> None:
    """Write the steps that were used, or are to be used again after an interruption."""
    content = {"judge": judge, "criteria": describe_plan(plan)}
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)


def kept_steps(path: Path, judge: str) -> StepPlan | None:
    """The steps that an interrupted attempt has kept; None when there are none of this judge."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["judge"] != judge:
        return None
    return read_plan(content["criteria"])


def describe_plan(plan: StepPlan) -> dict[str, Any]:
    """As JSON."""
    return {name: asdict(steps) for name, steps in plan.items()}


def read_plan(content: Mapping[str, Any]) -> StepPlan:
    """What `describe_plan` described."""
    return {name: Steps(entry["source"], tuple(entry["steps"])) for name, entry in content.items()}
