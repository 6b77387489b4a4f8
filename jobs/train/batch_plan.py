"""How much goes through the model at once: the fastest of what fits, by a cost model of measured straight lines.

A step of S tokens is cut into some S / T + 1/2 passes of at most T. Without recomputation T is small where memory is
short, and each pass costs a fixed time (dequantising the frozen weights, launching kernels); with it T is large, and
each token costs a third more. In between, the first layers recompute their activations and the others keep them. Where
there is room, the dequantised weights are kept instead of being made anew in every pass.

Legend: T tokens of one forward and backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pipeline_common.errors import TransientError

# Beyond this a pass gains nothing.
MOST: Final = 20_480
_GIB: Final = 2**30


@dataclass(frozen=True)
class BatchPlan:
    """What the flat engine decided."""

    tokens_per_batch: int
    recomputed_layers: int
    """The first so many layers recompute their activations in the backward pass."""
    layers: int
    weights_kept: bool = False
    """Dequantised weights stay in memory."""
    free_gib: float | None = None
    """What passes may take, measured beside the loaded model; None where nothing was measured."""
    mib_per_token: float | None = None
    """Expected, with this choice."""
    tokens_per_second: float | None = None
    """Expected for a mean step, without the optimizer."""
    launch_tokens: float | None = None
    """The GPU works on so many tokens while the host starts a pass's kernels: smaller passes wait for the host."""

    @property
    def activation_checkpointing(self) -> bool:
        """Any layer recomputes its activations."""
        return self.recomputed_layers > 0

    def describe(self) -> str:
        """One line for the log."""
        parts = [f"passes of {self.tokens_per_batch} tokens"]
        if self.recomputed_layers in (0, self.layers):
            parts.append(f"activations {'recomputed' if self.recomputed_layers else 'kept'}")
        else:
            parts.append(f"activations of {self.recomputed_layers} of {self.layers} layers recomputed")
        if self.weights_kept:
            parts.append("dequantised weights kept")
        if self.free_gib is not None and self.mib_per_token is not None:
            parts.append(f"{self.mib_per_token:.2f} MiB a token, {self.free_gib:.1f} GiB free")
        return ", ".join(parts)


@dataclass(frozen=True)
class Line:
    """Something that grows with T."""

    fixed: float
    per_token: float

    @classmethod
    def through(cls, first: tuple[int, float], second: tuple[int, float], least: float = 0.0) -> Line:
        """The line through two measured points (T, value), never falling.

        Args:
            first: the smaller one.
            second: the larger one; the line goes through it, or above it where it would begin below 0.
            least: the slope is at least this.
        """
        slope = max((second[1] - first[1]) / (second[0] - first[0]), second[1] / second[0] / 100, least)
        return cls(max(0.0, second[1] - slope * second[0]), slope)

    def towards(self, other: Line, share: float) -> Line:
        """The line that lies `share` of the way between this one and another."""
        return Line(
            self.fixed + share * (other.fixed - self.fixed),
            self.per_token + share * (other.per_token - self.per_token),
        )

    def at(self, tokens: float) -> float:
        """The value at T."""
        return self.fixed + self.per_token * tokens


@dataclass(frozen=True)
class Probe:
    """Memory and time of a pass, one way or the other."""

    bytes: Line
    seconds: Line
    launching: float | None = None
    """Seconds that the host takes to start a pass's kernels: those of a pass that is over when they have started."""
    busy: float | None = None
    """Seconds of GPU work a token, in a pass so large that the host does not matter."""

    def towards(self, other: Probe, share: float) -> Probe:
        """As `Line.towards`, of bytes and seconds."""
        return Probe(self.bytes.towards(other.bytes, share), self.seconds.towards(other.seconds, share))

    @property
    def launch_tokens(self) -> float | None:
        """The tokens that the GPU works on while the host starts a pass's kernels."""
        return self.launching / self.busy if self.launching and self.busy else None


@dataclass(frozen=True)
class Machine:
    """What there is."""

    free: float
    """Bytes for passes."""
    layers: int
    weights: float = 0.0
    """Bytes of all frozen weights, dequantised; 0 where they are not stored in 4 bits."""
    dequantising: float = 0.0
    """Seconds to dequantise all of them once."""


@dataclass(frozen=True)
class Work:
    """The rows that come."""

    longest_row: int
    """Tokens; no row is ever cut."""
    largest_step: int
    """Tokens of one optimizer step at most: larger passes have nothing to hold."""
    mean_step: float
    """Tokens."""

    @classmethod
    def of(cls, lengths: Sequence[int], rows_per_step: int) -> Work:
        """What rows of these lengths make.

        Args:
            lengths: tokens of every row.
            rows_per_step: rows of an optimizer step.
        """
        return cls(max(lengths), sum(sorted(lengths)[-rows_per_step:]), sum(lengths) / len(lengths) * rows_per_step)

    def passes(self, size: int) -> float:
        """Passes of at most `size` tokens in a mean step, when steps and rows differ in length."""
        return 1.0 if size >= self.largest_step else max(1.0, self.mean_step / size + 0.5)


def choose(
    machine: Machine,
    kept: Probe | None,
    recomputed: Probe | None,
    work: Work,
    *,
    checkpointing: bool | Literal["auto"],
    tokens: int | Literal["auto"],
) -> BatchPlan:
    """The fastest plan that fits.

    Args:
        machine: what there is.
        kept: a pass that keeps all activations; None if it was not measured or not even a small one fits.
        recomputed: a pass that recomputes all layers' activations; likewise.
        work: what comes.
        checkpointing: True: all layers, False: none, auto: the fastest share.
        tokens: of a pass; auto: as many as fit and help.

    Raises:
        TransientError: not even the longest row fits.
    """
    wanted = work.longest_row if tokens == "auto" else max(work.longest_row, tokens)
    plans = list(_plans(machine, kept, recomputed, work, checkpointing, tokens))
    fitting = [plan for plan, room in plans if room >= wanted]
    if fitting:
        return max(fitting, key=lambda plan: plan.tokens_per_second or 0.0)
    # More tokens than fit were asked for: as asked, in the way that takes least.
    if plans and max(room for _, room in plans) >= work.longest_row:
        return max(plans, key=lambda pair: pair[1])[0]
    least = recomputed or kept
    took = f"{least.bytes.at(work.longest_row) / _GIB:.1f} GiB for it" if least else "more than there is"
    raise TransientError(
        f"the GPU's memory does not suffice: the longest row has {work.longest_row} tokens, {machine.free / _GIB:.1f} "
        f"GiB are free, a pass takes {took}: set train.activation_checkpointing=true, lower prepare.max_length, or "
        "raise train.memory_gib or use a larger GPU"
    )


def _plans(
    machine: Machine,
    kept: Probe | None,
    recomputed: Probe | None,
    work: Work,
    checkpointing: bool | Literal["auto"],
    tokens: int | Literal["auto"],
) -> Iterator[tuple[BatchPlan, int]]:
    """Every plan, with the tokens that fit into a pass of it."""
    useful = max(work.longest_row, min(MOST, work.largest_step))
    for weights_kept in (False, True) if machine.weights else (False,):
        free = machine.free - machine.weights * weights_kept
        for layers in _shares(machine.layers, checkpointing):
            probe = _between(kept, recomputed, layers / machine.layers)
            if probe is None:
                continue
            room = max(0, int((free - probe.bytes.fixed) / probe.bytes.per_token))
            size = max(1, min(room, useful)) if tokens == "auto" else tokens
            # Two dequantisations a pass, and one more of each layer that computes its forward pass again.
            saved = weights_kept * machine.dequantising * (2 + layers / machine.layers)
            fixed = max(0.0, probe.seconds.fixed - saved)
            seconds = work.passes(size) * fixed + work.mean_step * probe.seconds.per_token
            yield (
                BatchPlan(
                    tokens_per_batch=size,
                    recomputed_layers=layers,
                    layers=machine.layers,
                    weights_kept=weights_kept,
                    free_gib=machine.free / _GIB,
                    mib_per_token=probe.bytes.per_token / 2**20,
                    tokens_per_second=work.mean_step / seconds,
                    launch_tokens=probe.launch_tokens,
                ),
                room,
            )


def _shares(layers: int, checkpointing: bool | Literal["auto"]) -> range:
    if checkpointing == "auto":
        return range(layers + 1)
    return range(layers, layers + 1) if checkpointing else range(1)


def _between(kept: Probe | None, recomputed: Probe | None, share: float) -> Probe | None:
    if share == 0:
        return kept
    if share == 1:
        return recomputed
    return kept.towards(recomputed, share) if kept and recomputed else None
