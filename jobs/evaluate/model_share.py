"""One process's part of reading the pair, the same in the leader and in those that follow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.evaluate import model_answering as answering
from jobs.evaluate import model_reading as reading
from jobs.evaluate.exchange import Exchange
from jobs.evaluate.model import ModelPair
from jobs.evaluate.model_copies import copying
from jobs.evaluate.model_reading import Budgets, EncodedPrompts
from jobs.evaluate.openings import OpeningSet
from jobs.evaluate.parts import Part
from jobs.evaluate.shared_tables import populating
from jobs.evaluate.sharing import ROLES, Batch, deal, share_of
from pipeline_common.context import Context
from pipeline_common.logs import get_logger
from pipeline_common.measures import Degradation

_ACTIVATIONS: Final = "activations"
"""Name of the phase."""
_log = get_logger(__name__)


class PairShare:
    """A loaded pair, the prompts, and which batches of each phase are this process's."""

    def __init__(self, context: Context, exchange: Exchange, pair: ModelPair, prompts: EncodedPrompts) -> None:
        self.pair = pair
        self.prompts = prompts
        self._context = context
        self._config = context.config.evaluate
        self._exchange = exchange
        self._own_budgets = reading.measure_budgets(pair, self._config)
        self._planned_budgets = self._own_budgets
        self.roles: Sequence[str] = ROLES
        """Whose activations are measured."""
        self.tables: dict[str, NDArray[np.float32]] = {}
        """On the leader's machine: role -> all prompts' activations [N, L + 1, D], which its processes fill."""
        self.seconds: dict[str, float] = {}
        """Where the time went when this process measured its activations; launching runs ahead of the GPU by a batch or
        two, so a role's seconds end before its last batch does."""

    @property
    def sweep(self) -> str:
        """How activations are read."""
        return reading.chosen_sweep(self.pair, self._config)

    @property
    def placement(self) -> list[str]:
        """Where and in which arithmetic this process computes; the same in all."""
        placement = self.pair.placement
        return [placement.device, str(placement.compute_dtype), placement.quantization]

    def settle(self, *, base_is_known: bool) -> None:
        """Leader: say what is measured, and in which batches."""

        def plan() -> dict[str, Any]:
            budgets = [self._own_budgets.reading, self._own_budgets.generating]
            return {"placement": self.placement, "measure_base": not base_is_known, "budgets": budgets}

        def holds(said: dict[str, Any]) -> bool:
            return said["placement"] == self.placement and (said["measure_base"] or base_is_known)

        self._take(self._exchange.settle("plan", plan, holds))

    def hear(self) -> None:
        """Follower: learn it."""
        own = self.placement
        self._take(
            self._exchange.hear(
                "plan", lambda said: said["placement"] == own, f" for device, arithmetic and quantization {own}"
            )
        )

    def _take(self, plan: dict[str, Any]) -> None:
        self._planned_budgets = Budgets(*plan["budgets"])
        self.roles = ROLES if plan["measure_base"] else ROLES[1:]

    def activations(self) -> Part:
        """This process's rows of both roles as records; their states are in the tables, or the part's tensors."""
        shape = reading.activation_shape(self.pair, self.prompts)
        for role in self.roles:
            table = self._exchange.open_table(role, shape)
            if table is not None:
                self.tables[role] = table
        return self._exchange.contribute(_ACTIVATIONS, self._measure, tensors=True)

    def gather_activations(self, own: Part) -> list[Part]:
        """Leader: everybody's, whose rows are in the tables then, or in the parts."""
        return self._exchange.gather(_ACTIVATIONS, own, tensors=True)

    def _measure(self) -> Part:
        """Both roles one after the other: nothing is handed over, or waited for, between them."""
        batches = reading.activation_batches(self.prompts, self.sweep, self.roles, self._planned_budgets)
        own = self._deal(batches)
        records, tensors, lesser = [], {}, list[Degradation]()

        def degrade(name: str, detail: str) -> None:
            if (one := self._context.degrade(name, detail)) not in lesser:
                lesser.append(one)

        shares = {role: share_of(own, reading.READ, role) for role in self.roles}
        written = [(self.tables[role], share.rows) for role, share in shares.items() if role in self.tables]
        ends = [time.perf_counter()]
        with populating(written), copying(torch.device(self.pair.placement.device)) as copies:
            for role, share in shares.items():
                if share.rows:
                    ask = (self.pair, self.prompts, self._config, role, share, self._budgets, degrade)
                    found = reading.read_activations(*ask, table=self.tables.get(role), copies=copies)
                    records.append({"role": role, "rows": list(share.rows)})
                    if role not in self.tables:
                        tensors[role] = found
                ends.append(time.perf_counter())
        ends.append(time.perf_counter())
        spent = [after - before for before, after in pairwise(ends)]
        self.seconds = {
            **dict(zip((*self.roles, "last copies"), spent, strict=True)),
            "until the first batch was stored": copies.first_s,
            "storing, beside": copies.stored_s,
        }
        _log.debug("activations, seconds: %s", {name: round(seconds, 3) for name, seconds in self.seconds.items()})
        return Part(records, tensors, tuple(lesser))

    def answers(self) -> Part:
        """Greedy answers and the beginnings of refusals, as records."""
        own = self._deal(
            [
                *answering.answer_batches(self.prompts, self._config, self._planned_budgets),
                *answering.beam_batches(self.prompts, self._config, self._planned_budgets),
            ]
        )
        ask = (self.pair, self.prompts, self._config)

        def measure() -> Part:
            records: list[dict[str, Any]] = []
            for role in ROLES:
                share = share_of(own, answering.ANSWER, role)
                if share.rows:
                    answers = answering.read_answers(*ask, role, share, self._budgets, self._context.clock)
                    records += [
                        {
                            "task": answering.ANSWER,
                            "role": role,
                            "row": row,
                            "text": one.text,
                            "token_ids": one.token_ids,
                            "stop_id": one.stop_id,
                        }
                        for row, one in zip(share.rows, answers, strict=True)
                    ]
                share = share_of(own, answering.SEARCH, role)
                if share.rows:
                    found = answering.read_beams(*ask, role, share, self._budgets)
                    records += [
                        {"task": answering.SEARCH, "role": role, "row": row, "openings": openings}
                        for row, openings in zip(share.rows, found, strict=True)
                    ]
            return Part(records)

        return self._exchange.contribute("answers", measure)

    def log_odds(self, openings: OpeningSet) -> Part:
        """Refusal log-odds in nats, as records."""
        own = self._deal(answering.odds_batches(self.pair, self.prompts, openings, self._planned_budgets))

        def measure() -> Part:
            records: list[dict[str, Any]] = []
            for role in ROLES:
                share = share_of(own, answering.SCORE, role)
                if share.rows:
                    odds = answering.read_log_odds(self.pair, self.prompts, openings, role, share, self._budgets)
                    records += [
                        {"role": role, "row": row, "value": float(value)}
                        for row, value in zip(share.rows, np.asarray(odds), strict=True)
                    ]
            return Part(records)

        return self._exchange.contribute("log-odds", measure)

    @property
    def _budgets(self) -> Budgets:
        """What this process may put through at once."""
        return self._own_budgets.within(self._planned_budgets)

    def _deal(self, batches: Sequence[Batch]) -> list[Batch]:
        shard = self._exchange.shard
        return deal(batches, shard.count)[shard.index]
