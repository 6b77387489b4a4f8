"""One process's part of the activations, beside another's, in one process of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluate.exchange import Exchange
from jobs.evaluate.merging import merge_activations
from jobs.evaluate.model_reading import EncodedPrompts
from jobs.evaluate.model_share import PairShare
from jobs.evaluate.selection import LabelledPrompt
from jobs.evaluate.shared_tables import shared_tables
from jobs.evaluate.sharing import ROLES, Shard
from pipeline_common.config import load_config
from pipeline_common.errors import InputError
from pipeline_common.stages import plan_run
from pipeline_common.workplace import open_workplace
from tests.made_stages import make_context


@pytest.fixture
def tables(tmp_path) -> Iterator[Any]:
    with shared_tables(ROLES, tmp_path) as made:
        yield made


def open_shares(folder: Path, pair: Any, prompts: Any, tables: Any, count: int, sweep: str) -> list[PairShare]:
    """All processes' shares, which have agreed on the plan."""
    config = load_config(
        "tiny", [f"runtime.output_dir={folder}", f"evaluate.sweep={sweep}", "evaluate.batch_tokens=150"]
    )
    place, plan = open_workplace(config), plan_run(config)
    labelled = [LabelledPrompt(f"p-{number}", "none", "safe", "made", "") for number in range(len(prompts))]
    shares = []
    for index in range(count):
        context = make_context(place, plan, "evaluate", folder / f"shard-{index}")
        exchange = Exchange(context, Shard(index, count), folder / "parts", tables)
        share = PairShare(context, exchange, pair, EncodedPrompts(labelled, prompts, []))
        if index:
            share.hear()
        else:
            share.settle(base_is_known=False)
        shares.append(share)
    return shares


@pytest.mark.parametrize("sweep", ["simple", "flat"])
@pytest.mark.parametrize("count", [2, 4])
def test_the_same_bytes_by_several_processes(tmp_path, pair, prompts, tables, count, sweep):
    (alone,) = open_shares(tmp_path / "alone", pair, prompts, {}, 1, sweep)
    merge_activations(alone.tables, [alone.activations()], len(prompts))
    leader, *others = open_shares(tmp_path / "several", pair, prompts, tables, count, sweep)
    for other in others:
        assert other.activations().records
    merge_activations(leader.tables, leader.gather_activations(leader.activations()), len(prompts))
    for role in ROLES:
        assert leader.tables[role].tobytes() == alone.tables[role].tobytes()
    assert set(leader.seconds) >= {*ROLES, "last copies"}


@pytest.mark.parametrize("sweep", ["simple", "flat"])
def test_what_is_not_finite_in_a_followers_rows_is_named_and_never_handed_over(tmp_path, pair, prompts, tables, sweep):
    unused = next(token for token in range(3, 400) if not any(token in ids for ids in prompts))
    _, follower = open_shares(tmp_path / "sound", pair, prompts, tables, 2, sweep)
    first = follower.activations().records[0]
    bad, role = max(first["rows"]), first["role"]
    marked = [list(ids) for ids in prompts]
    marked[bad][-1] = unused
    embedding = pair.peft.get_base_model().get_input_embeddings()
    handle = embedding.register_forward_hook(
        lambda _module, args, states: states.masked_fill((args[0] == unused)[..., None], float("nan"))
    )
    try:
        _, follower = open_shares(tmp_path / "spoilt", pair, marked, tables, 2, sweep)
        with pytest.raises(
            InputError, match=rf"^{role} activations: NaN or infinity at prompt {bad} \(p-{bad}\), layer 0"
        ):
            follower.activations()
        assert not [
            path for path in (tmp_path / "spoilt" / "parts").rglob("records.json") if "rows" in path.read_text()
        ]
    finally:
        handle.remove()
