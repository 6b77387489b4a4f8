"""Decoding by recorded steps chooses what transformers' own loop chooses."""

from __future__ import annotations

from functools import partial

import pytest

from pipeline_common.clock import PhaseClock
from pipeline_common.gpu.recordable import can_be_recorded
from tests.evaluate.made_answers import answered


def answers(pair, prompts, role, decoder, *, max_new_tokens=13, batch_tokens=300, **options):
    lengths = {"max_new_tokens": max_new_tokens, "batch_tokens": batch_tokens}
    return answered(pair, prompts, role, decoder=decoder, **lengths, **options)


@pytest.mark.parametrize("role", ["base", "tuned"])
def test_equals_transformers_own_loop(pair, prompts, role):
    library = answers(pair, prompts, role, "library")
    assert answers(pair, prompts, role, "steps") == library
    assert answers(pair, prompts, role, "auto") == library
    assert {answer.finished for answer in library} == {True, False}
    # One prompt at a time, without padding.
    assert answers(pair, prompts, role, "steps", batch_tokens=1) == library


def test_ends_at_any_stop_token_and_at_the_limit(pair, prompts):
    long = answers(pair, prompts, "base", "steps")
    third = long[0].token_ids[2]
    stopped = answers(pair, prompts, "base", "steps", stop_ids=(2, third))
    assert (stopped[0].token_ids, stopped[0].stop_id) == (long[0].token_ids[:2], third)
    assert stopped == answers(pair, prompts, "base", "library", stop_ids=(2, third))
    for limit in (1, 2, 9):
        short = answers(pair, prompts, "base", "steps", max_new_tokens=limit)
        assert [one.token_ids for one in short] == [one.token_ids[:limit] for one in long]


def test_recording_a_step_is_timed(pair, prompts):
    """After the prompt and two steps run plainly: an answer of three tokens needs no recording, one of four does."""
    for limit, phases in ((3, []), (4, [("a step", "compile")])):
        clock = PhaseClock()
        options = {"max_new_tokens": limit, "recording": partial(clock.phase, "a step", "compile")}
        # A token that no answer has, so that none ends early.
        answers(pair, prompts[:2], "base", "steps", stop_ids=(10**6,), **options)
        assert [(one["phase"], one["kind"]) for one in clock.record()] == phases


def test_what_can_be_recorded(pair):
    from transformers import LlamaConfig, MistralConfig

    assert can_be_recorded(pair.peft.get_base_model().config)
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert not can_be_recorded(LlamaConfig(rope_parameters=scaled))
    assert not can_be_recorded(MistralConfig(sliding_window=128))
    assert can_be_recorded(MistralConfig(sliding_window=None))
