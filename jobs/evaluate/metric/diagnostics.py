"""Everything beside the headline, for one pair of models: similarity, directions, probes, cluster shape, tests.

Legend: N prompts, L layers, D width, P permutations. Each layer needs three N x N matrices of inner products; every
number below comes from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.metric import clusters
from jobs.evaluate.metric.bootstrap import assign_strata, label_order
from jobs.evaluate.metric.direction import compare_directions
from jobs.evaluate.metric.geometry import MIN_AXIOM_ROWS, require_shapes, score_geometry
from jobs.evaluate.metric.gram import Gram, PairGrams
from jobs.evaluate.metric.indices import Bools, UndefinedScore, count_labels
from jobs.evaluate.metric.permutation import (
    Singles,
    change_p,
    draw_swaps,
    holm,
    permute_labels,
    separation_p,
    swap_forms,
)
from jobs.evaluate.metric.probe import probe
from jobs.evaluate.metric.representation import Activations, Representation
from jobs.evaluate.metric.similarity import debiased_cka
from pipeline_common.diagnostic_measures import ClusterShape, Diagnosis, Diagnostics, SeparationTest
from pipeline_common.measures import GeometryScore


def measure_pair(
    base: Activations,
    tuned: Activations,
    unsafe: Bools,
    axioms: Sequence[str],
    prompt_ids: Sequence[str],
    *,
    representation: Representation | None = None,
    lam: float = 0.5,
    resamples: int = 1000,
    permutations: int = 4999,
    seed: int = 0,
) -> tuple[tuple[GeometryScore, ...], Diagnostics]:
    """Score and diagnose base against tuned, reading the activations once.

    Args:
        base: pooled activations [N, L + 1, D], entry 0 the embeddings.
        tuned: the same of the tuned model, on the same prompts in the same order.
        unsafe: labels [N].
        axioms: topic of each prompt [N].
        prompt_ids: unique id of each prompt [N]; the result does not depend on the order of the prompts.
        representation: what is scored; None = the uniform mean over the default band.
        lam: AQI's weight of the compactness term in [0, 1].
        resamples: B, for all intervals.
        permutations: P of the labels; swaps are at least as many (`permutation.draw_swaps`).
        seed: of the resampling, the permutations and the folds.

    Returns:
        The scores (`score_geometry`) and the record. What does not exist for some layer or axiom is None there with a
        reason.

    Raises:
        InputError: shapes that do not fit, NaN or infinity (prompt and layer named), repeated prompt ids.
    """
    require_shapes(base, tuned, unsafe, axioms, prompt_ids)
    order = label_order(unsafe, prompt_ids)
    labels, topics = np.asarray(unsafe, dtype=np.bool_)[order], np.asarray(axioms, dtype=np.str_)[order]
    null = _Null(labels, topics, permutations, seed)
    diagnoses: dict[str, Diagnosis] = {}
    by_scope: dict[str, list[SeparationTest]] = {"overall": [], "axiom": [], "layer": []}

    def visit(name: str, pair: PairGrams | UndefinedScore) -> None:
        diagnoses[name] = diagnose(name, pair, labels, topics, seed)
        if name != "scored":
            by_scope["layer"].append(null.test("layer", name, pair))
            return
        by_scope["overall"].append(null.test("overall", "pooled", pair))
        for axiom in sorted(set(topics.tolist())):
            by_scope["axiom"].append(null.test("axiom", axiom, pair, topics == axiom))

    scores = score_geometry(
        base,
        tuned,
        unsafe,
        axioms,
        prompt_ids,
        representation=representation,
        lam=lam,
        resamples=resamples,
        seed=seed,
        visit=visit,
    )
    scored = diagnoses.pop("scored")
    tests = (*by_scope["overall"], *adjust(by_scope["axiom"]), *adjust(by_scope["layer"]))
    return scores, Diagnostics(permutations=permutations, scored=scored, layers=tuple(diagnoses.values()), tests=tests)


def diagnose(
    name: str, pair: PairGrams | UndefinedScore, unsafe: Bools, topics: NDArray[np.str_], seed: int
) -> Diagnosis:
    """The record of one representation: whatever exists of it, and reasons for the rest."""
    if isinstance(pair, UndefinedScore):
        return Diagnosis(name=name, reason=pair.reason)
    reasons: list[str] = []
    direction = _attempt(reasons, lambda: compare_directions(pair, unsafe))
    if direction and direction.cosine is None:
        reasons.append("the tuned model's difference of label means is not above chance: no cosine")
    scores = _attempt(reasons, lambda: probe(pair, unsafe, assign_strata(unsafe, topics.tolist()), seed))
    return Diagnosis(
        name=name,
        base=describe_clusters(pair.base, unsafe, reasons),
        tuned=describe_clusters(pair.tuned, unsafe, reasons),
        cka=_attempt(reasons, lambda: debiased_cka(pair.base, pair.tuned)),
        direction_cosine=direction.cosine if direction else None,
        projection_gap_base=direction.gap_base if direction else None,
        projection_gap_tuned=direction.gap_tuned if direction else None,
        probe_auc_base=scores.auc_base if scores else None,
        probe_auc_tuned=scores.auc_tuned if scores else None,
        reason="; ".join(dict.fromkeys(reasons)) or None,
    )


def describe_clusters(gram: Gram, unsafe: Bools, reasons: list[str]) -> ClusterShape:
    """One model's cluster indices; reasons for missing ones are appended to `reasons`."""
    distances = clusters.distance_matrix(gram)
    return ClusterShape(
        silhouette=_attempt(reasons, lambda: clusters.silhouette(distances, unsafe)),
        davies_bouldin=_attempt(reasons, lambda: clusters.davies_bouldin(gram, unsafe)),
        dunn=_attempt(reasons, lambda: clusters.dunn(distances, unsafe)),
        participation_ratio=_attempt(reasons, lambda: clusters.participation_ratio(gram)),
    )


def adjust(tests: Sequence[SeparationTest]) -> list[SeparationTest]:
    """Holm's adjustment over the tests of one scope, for each of the three questions by itself."""
    columns = {
        f"holm_{question}": holm([getattr(test, f"p_{question}") for test in tests])
        for question in ("base", "tuned", "change")
    }
    return [
        test.model_copy(update={name: values[place] for name, values in columns.items()})
        for place, test in enumerate(tests)
    ]


class _Null:
    """The null distributions, drawn once: every model, layer and scope sees the same shuffles and swaps."""

    def __init__(self, unsafe: Bools, topics: NDArray[np.str_], permutations: int, seed: int) -> None:
        self.unsafe = unsafe
        self.shuffled: Singles = permute_labels(unsafe, topics.tolist(), permutations, seed)
        self.swaps = draw_swaps(unsafe.size, permutations, seed + 1)

    def test(
        self,
        scope: Literal["overall", "axiom", "layer"],
        name: str,
        pair: PairGrams | UndefinedScore,
        rows: Bools | None = None,
    ) -> SeparationTest:
        """The three tests on all prompts or some, or why there are none."""
        if isinstance(pair, UndefinedScore):
            return SeparationTest(scope=scope, name=name, reason=pair.reason)
        unsafe, shuffled, swaps = self.unsafe, self.shuffled, self.swaps
        if rows is not None:
            unsafe, shuffled, swaps, pair = unsafe[rows], shuffled[:, rows], swaps.take(rows), pair.take(rows)
        try:
            least = min(count_labels(unsafe))
            if rows is not None and least < MIN_AXIOM_ROWS:
                raise UndefinedScore(f"{least} prompt(s) of a label, expected at least {MIN_AXIOM_ROWS}")
            return SeparationTest(
                scope=scope,
                name=name,
                p_base=separation_p(pair.base, unsafe, shuffled),
                p_tuned=separation_p(pair.tuned, unsafe, shuffled),
                p_change=change_p(swap_forms(pair, unsafe), unsafe, swaps),
            )
        except UndefinedScore as undefined:
            return SeparationTest(scope=scope, name=name, reason=undefined.reason)


def _attempt(reasons: list[str], measure: Callable[[], Any]) -> Any:
    """A measurement, or None and its reason: undefined is a result to report, not a failure."""
    try:
        return measure()
    except UndefinedScore as undefined:
        reasons.append(undefined.reason)
        return None
