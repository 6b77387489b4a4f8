from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.controls.measuring import measure_controls
from jobs.evaluate.metric.geometry import score_geometry
from jobs.evaluate.metric.representation import average_layers
from jobs.evaluate.selection import LabelledPrompt

N, L, D = 128, 3, 12
UNSAFE = np.arange(N) % 2 == 1
NAMES = (
    "states",
    "words",
    "length",
    "source",
    "axiom",
    "layer_0",
    "layer_0_f2",
    "shuffled_labels",
    "shuffled_labels_aqi",
    "label_noise_1",
    "label_noise_5",
    "label_noise_10",
)


def make_prompts(sources: tuple[str, str] = ("here", "there")) -> list[LabelledPrompt]:
    rng = np.random.default_rng(1)
    return [
        LabelledPrompt(
            prompt_id=f"prompt-{i:03d}",
            axiom=("Justice", "Peace")[i // 2 % 2],
            safety_label="unsafe" if UNSAFE[i] else "safe",
            source_dataset=sources[int(rng.integers(2))],
            text=" ".join(rng.choice(["a", "bb", "ccc", "dddd"], size=6)) + f" {i}",
        )
        for i in range(N)
    ]


def make_activations(seed: int, gap: float, *, constant_embeddings: bool = False) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(N, L + 1, D))
    x[:, 1:, 0] += gap * UNSAFE[:, np.newaxis]
    if constant_embeddings:
        x[:, 0] = 0.25
    return x.astype(np.float32)


def measure(prompts, base, tuned, **settings):
    geometry = score_geometry(
        base,
        tuned,
        np.array([p.unsafe for p in prompts]),
        [p.axiom for p in prompts],
        [p.prompt_id for p in prompts],
        resamples=200,
    )
    layer_0 = next(score for score in geometry if (score.scope, score.name) == ("layer", "0"))
    found = measure_controls(prompts, base, tuned, average_layers((2,)), layer_0, **settings)
    return {control.name: control for control in found}, geometry


def test_every_control_in_its_order():
    base, tuned = make_activations(2, 6.0), make_activations(3, 2.0)
    found, geometry = measure(make_prompts(), base, tuned, lam=0.5, seed=4)
    assert tuple(found) == NAMES
    assert {control.status for control in found.values()} == {"ok"}
    assert {name for name, control in found.items() if control.tuned is None} == {"words", "length", "source", "axiom"}
    assert found["states"].value.value == pytest.approx(1.0, abs=0.005)  # 6 SD apart
    assert 0.8 < found["states"].tuned.value < 1.0  # 2 SD apart: Phi(2 / sqrt 2) = .92 at best
    assert found["layer_0"].value.low < 0.5 < found["layer_0"].value.high
    layer_0 = next(score for score in geometry if (score.scope, score.name) == ("layer", "0"))
    assert (found["layer_0_f2"].value, found["layer_0_f2"].tuned) == (layer_0.base.f2, layer_0.tuned.f2)


def test_aqi_under_shuffled_labels_is_that_of_its_f2():
    """CHI = 1 + f2 n_safe n_unsafe / n; AQI = CHI (lam n^2 / ((n - 2) n_safe n_unsafe) + 1 - lam)."""
    base = make_activations(2, 6.0)
    found, _ = measure(make_prompts(), base, base, lam=0.3)
    chi = 1 + found["shuffled_labels"].value.value * 64 * 64 / 128
    aqi = chi * (0.3 * 128**2 / (126 * 64 * 64) + 0.7)
    assert found["shuffled_labels_aqi"].value.value == pytest.approx(aqi)
    assert chi == pytest.approx(1.0, abs=0.1)


def test_the_same_model_twice_gives_the_same_twice():
    base = make_activations(2, 3.0)
    found, _ = measure(make_prompts(), base, base)
    assert all(control.tuned in (None, control.value) for control in found.values())


def test_the_order_of_the_prompts_does_not_matter_and_the_seed_does():
    prompts, base, tuned = make_prompts(), make_activations(2, 1.0), make_activations(3, 0.5)
    order = np.random.default_rng(9).permutation(N)
    found, _ = measure(prompts, base, tuned, seed=4)
    again, _ = measure([prompts[i] for i in order], base[order], tuned[order], seed=4)
    other, _ = measure(prompts, base, tuned, seed=5)
    assert again == found
    changed = {name for name in NAMES if other[name] != found[name]}
    assert changed >= {"states", "words", "shuffled_labels", "label_noise_10"}


def test_what_is_constant_is_undefined_with_its_reason():
    base = make_activations(2, 3.0, constant_embeddings=True)
    found, _ = measure(make_prompts(("one", "one")), base, base)
    reasons = {name: control.reason for name, control in found.items() if control.status == "undefined"}
    assert reasons == {
        "source": "every prompt is of 'one'",
        "layer_0": "layer 0 is the same for every prompt: nothing to separate",
        "layer_0_f2": "layer 0 is the same for every prompt: nothing to separate",
    }
    assert all(found[name].value.value is None and found[name].tuned is None for name in reasons)


def test_a_constant_scored_layer_leaves_only_what_needs_no_states():
    base = make_activations(2, 3.0)
    base[:, 2] = 1.0
    found, _ = measure(make_prompts(), base, base)
    assert {name for name, control in found.items() if control.status == "ok"} == {
        "words",
        "length",
        "source",
        "axiom",
        "layer_0",
        "layer_0_f2",
    }
