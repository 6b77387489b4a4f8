"""The report's section on the answers: both models side by side, to be filtered and searched."""

from __future__ import annotations

from jobs.analyze.blocks import Examples, Section, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.examples import ROOMS, Room, choose_examples, list_examples


def show_answers(evidence: Evidence, room: Room = ROOMS[0]) -> Section:
    """All prompts that both models answered, those that changed most first.

    Args:
        evidence: what was measured.
        room: how much of them is shown.
    """
    title = "Answers side by side"
    left_out = evidence.config.analyze.redact_responses
    every = list_examples(evidence.responses, max_characters=room.characters, without_unsafe=left_out)
    if not every:
        return Section("answers", title, (text("No prompt has an answer of both models."),))
    shown = every[: room.prompts]
    redaction = (
        "Answers to unsafe prompts are left out of the report (analyze.redact_responses=true)."
        if left_out
        else "Answers to unsafe prompts are in report.html, each behind a click of its own; "
        "analyze.redact_responses=true leaves them out of the file."
    )
    rest = f" {len(every) - len(shown)} more prompts are in the files only." if len(every) > len(shown) else ""
    intro = text(
        "Those that changed most come first: where only one model refused, then where the text differs, then by the "
        f"change of the refusal log-odds. {redaction} All answers in full are in responses.jsonl of evaluate and in "
        f"the table model_responses.{rest}"
    )
    return Section("answers", title, (intro, Examples(shown, choose_examples(shown))))
