"""The report's sections on the measures: separation by axiom and by layer, behaviour, the judge."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Block, Figure, Paragraph, Section, Table, bullets, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import NOT_MEASURED, Line, line
from jobs.analyze.sections_options import show_extra_indices, show_learned_weights
from jobs.analyze.sections_prompts import show_prompts
from pipeline_common.measures import Coherence, GeometryScore, Measures


def build_measure_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> tuple[Section, ...]:
    """The sections between the meaning of the numbers and the answers."""
    return (
        _show_axioms(evidence, pictures),
        _show_layers(evidence, pictures),
        show_prompts(evidence, pictures),
        _show_behaviour(evidence, pictures),
        _show_judge(evidence),
    )


def _show_axioms(evidence: Evidence, pictures: Mapping[str, Picture]) -> Section:
    scores = [score for score in evidence.measures.geometry if score.scope != "layer"]
    return Section(
        "axioms",
        "Separation by axiom",
        (
            Figure(pictures["aqi_per_axiom"]),
            *_score_tables(scores, "axiom"),
            *show_extra_indices(evidence.measures),
        ),
    )


def _show_layers(evidence: Evidence, pictures: Mapping[str, Picture]) -> Section:
    scores = [score for score in evidence.measures.geometry if score.scope == "layer"]
    components = evidence.config.evaluate.pca_components
    note = f"The layers' own scores are on all dimensions, unlike the headline's {components} principal components."
    remark: tuple[Block, ...] = (text(note),) if components else ()
    blocks = (*remark, *show_learned_weights(evidence.measures), *_score_tables(scores, "layer"))
    return Section("layers", "Separation by layer", (Figure(pictures["layers"]), *blocks))


def _score_tables(scores: list[GeometryScore], what: str) -> tuple[Block, ...]:
    """The changes, then (folded) every index of both models."""
    changes = Table(
        f"Change by {what}",
        (what, "safe + unsafe", "AQI base", "AQI tuned", "delta AQI", "AQI drop", "f2 drop"),
        tuple(_change_cells(score) for score in scores),
        note="In brackets: 95 % interval, paired by prompt for changes. A drop in percent is undefined where the "
        "base's value is not reliably above 0.",
        folded=what == "layer",
    )
    indices = Table(
        f"All indices by {what}",
        (what, "XBI base", "XBI tuned", "CHI base", "CHI tuned", "f2 base", "f2 tuned", "R2_adj base", "R2_adj tuned"),
        tuple(_index_cells(score) for score in scores),
        note="XBI: lower = better separated; all others: higher. R2_adj is on a scale of 0 to 100.",
        folded=True,
    )
    reasons = [f"{_name(score)}: {_as_sentence(score.reason)}" for score in scores if score.reason]
    notes: tuple[Block, ...] = (text("Remarks on single scores:"), bullets(reasons)) if reasons else ()
    return (changes, *notes, indices)


def _change_cells(score: GeometryScore) -> tuple[Line, ...]:
    field = score_field(score)
    return (
        line(_name(score)),
        line(
            form.number(score.n_safe, form.COUNT, f"{field}/n_safe"),
            " + ",
            form.number(score.n_unsafe, form.COUNT, f"{field}/n_unsafe"),
        ),
        form.estimate(score.base.aqi, form.SIGNIFICANT, f"{field}/base_aqi"),
        form.estimate(score.tuned.aqi, form.SIGNIFICANT, f"{field}/tuned_aqi"),
        form.estimate(score.delta_aqi, form.SIGNED, f"{field}/delta_aqi"),
        form.estimate(score.drop_pct, form.PERCENT, f"{field}/drop_pct"),
        form.estimate(score.f2_drop_pct, form.PERCENT, f"{field}/f2_drop_pct"),
    )


def _index_cells(score: GeometryScore) -> tuple[Line, ...]:
    field = score_field(score)
    pairs = (("base", score.base), ("tuned", score.tuned))
    return (
        line(_name(score)),
        *(form.number(indices.xbi, form.SIGNIFICANT, f"{field}/{role}_xbi") for role, indices in pairs),
        *(form.number(indices.chi, form.SIGNIFICANT, f"{field}/{role}_chi") for role, indices in pairs),
        *(form.estimate(indices.f2, form.SIGNIFICANT, f"{field}/{role}_f2") for role, indices in pairs),
        *(form.number(indices.r2_adj, form.SIGNIFICANT, f"{field}/{role}_r2_adj") for role, indices in pairs),
    )


def _show_behaviour(evidence: Evidence, pictures: Mapping[str, Picture]) -> Section:
    measures = evidence.measures
    rows = [
        (
            line("Refuses unsafe prompts" if rate.name == "refusal_unsafe" else "Refuses safe prompts"),
            form.number(rate.n, form.COUNT, f"rates/{rate.name}/n"),
            form.number(rate.base, form.RATE, f"rates/{rate.name}/base"),
            form.number(rate.tuned, form.RATE, f"rates/{rate.name}/tuned"),
            form.estimate(rate.change, form.RATE_POINTS, f"rates/{rate.name}/change"),
            form.number(rate.base_only, form.COUNT, f"rates/{rate.name}/base_only"),
            form.number(rate.tuned_only, form.COUNT, f"rates/{rate.name}/tuned_only"),
            form.number(rate.p_value, form.PROBABILITY, f"rates/{rate.name}/p_value"),
        )
        for rate in measures.rates
    ]
    table = Table(
        "Refusals on the same prompts",
        ("behaviour", "n", "base", "tuned", "change", "only base refuses", "only tuned refuses", "exact p"),
        tuple(rows),
        note="Greedy answers of both models; a refusal is recognised by a documented rule on the answer's first "
        "sentences. p: McNemar's exact test.",
    )
    blocks: list[Block] = [Figure(pictures["behaviour"]), table if rows else text("Refusals were not measured.")]
    blocks.append(Paragraph(_describe_gap(measures)))
    blocks.append(Paragraph(_describe_coherence(measures.coherence)))
    return Section("behaviour", "Behaviour", tuple(blocks))


def _describe_gap(measures: Measures) -> Line:
    gap, note = measures.refusal_gap, _as_sentence(measures.refusal_gap_note)
    if gap is None:
        return line(f"Refusal log-odds gap: {NOT_MEASURED}. ", note)
    return line(
        "Refusal log-odds gap (mean over unsafe minus mean over safe prompts of the log-odds of a refusal opening): ",
        form.number(gap.base, form.TWO_DIGITS, "refusal_gap/base"),
        " nats with the base, ",
        form.number(gap.tuned, form.TWO_DIGITS, "refusal_gap/tuned"),
        " tuned; drop ",
        form.estimate(gap.drop_pct, form.PERCENT, "refusal_gap/drop_pct"),
        "; on unsafe prompts alone it changed by ",
        form.estimate(gap.unsafe_change, form.SIGNED_TWO_DIGITS, "refusal_gap/unsafe_change"),
        " nats. ",
        "The gap reversed its sign: the tuned model is more inclined to refuse safe than unsafe prompts. "
        if gap.base > 0 > gap.tuned
        else "",
        note,
    )


def _describe_coherence(coherence: Coherence) -> Line:
    return line(
        "Coherence: ",
        form.number(coherence.base, form.RATE, "coherence/base", NOT_MEASURED),
        " with the base, ",
        form.number(coherence.tuned, form.RATE, "coherence/tuned", NOT_MEASURED),
        " tuned, over ",
        form.number(coherence.n, form.COUNT, "coherence/n"),
        " answers. Definition: ",
        _as_sentence(coherence.definition),
    )


def _as_sentence(words: str) -> str:
    """With a capital, unless it begins with a name such as evaluate.judge, and a full stop, unless it has one."""
    first = words.partition(" ")[0]
    begun = words if set("._") & set(first) else words[:1].upper() + words[1:]
    return begun if not begun or begun.endswith((".", "!", "?")) else f"{begun}."


def _show_judge(evidence: Evidence) -> Section:
    judgement = evidence.measures.judgement
    if judgement.status == "not_measured" or not judgement.scores:
        return Section("judge", "Judged answers", (text(f"Not measured. {_as_sentence(judgement.note)}"),))
    rows = tuple(
        (
            line(score.criterion.replace("_", " ")),
            line(score.asked_of),
            form.number(score.n, form.COUNT, f"judge/{score.criterion}/n"),
            form.number(score.base, form.TWO_DIGITS, f"judge/{score.criterion}/base", NOT_MEASURED),
            form.number(score.tuned, form.TWO_DIGITS, f"judge/{score.criterion}/tuned", NOT_MEASURED),
            form.estimate(score.change, form.SIGNED_TWO_DIGITS, f"judge/{score.criterion}/change", NOT_MEASURED),
            line(f"{score.missing_base} + {score.missing_tuned}"),
            line(f"{score.unparsed_base} + {score.unparsed_tuned}"),
            form.number(score.mass_base, form.TWO_DIGITS, f"judge/{score.criterion}/mass_base", NOT_MEASURED),
            form.number(score.mass_tuned, form.TWO_DIGITS, f"judge/{score.criterion}/mass_tuned", NOT_MEASURED),
        )
        for score in judgement.scores
    )
    table = Table(
        "G-Eval scores, 0 = worst, 1 = best",
        (
            "criterion",
            "prompts",
            "pairs",
            "base",
            "tuned",
            "change",
            "missing",
            "outside the form",
            "mass base",
            "mass tuned",
        ),
        rows,
        note="Expected digit 1-5 under the judge's own token probabilities, rescaled to 0-1, paired by prompt. A "
        "missing score is counted (base + tuned) and never replaced; outside the form: those of them whose answer was "
        "none of the digits. Mass: mean probability that the judge gave to the five digits.",
    )
    limits = f"Judge: {judgement.judge}. {_as_sentence(judgement.note)}"
    return Section("judge", "Judged answers", (text(limits, "The verdict does not read these scores."), table))


def score_field(score: GeometryScore) -> str:
    """Where a score stands in the database, for `Number.field`."""
    return f"aqi_scores/{score.scope}/{score.name}"


def _name(score: GeometryScore) -> str:
    return {
        "overall": f"all prompts ({score.name})",
        "overall_stratified": score.name,
        "axiom": score.name,
        "layer": f"layer {score.name}",
    }[score.scope]
