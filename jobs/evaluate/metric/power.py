"""What a comparison of this size can show."""

from __future__ import annotations

from scipy.stats import norm

from jobs.evaluate.metric.bootstrap import LEVEL
from pipeline_common.measures import Estimate

POWER = 0.8


def detectable_drop_pct(f2_drop: Estimate, power: float = POWER) -> float | None:
    """Smallest true drop whose 95 % interval lies above 0 in `power` of repeated samples of prompts.

    (z_0.975 + z_power) standard errors (the usual normal approximation; Cohen 1988), the standard error being the
    paired bootstrap's: a quarter of the interval's width, roughly. It shrinks with 1 / sqrt(n). It holds for
    the noise that this pair of models shows over prompts; that of training again with another seed comes on top.

    Args:
        f2_drop: overall drop in percent with its interval.
        power: chance of showing it, in (0, 1).

    Returns:
        Percent of the base's f2, > 0; None if the drop is undefined or its interval has no width (identical
        activations: the pair shows no noise to judge from).
    """
    if f2_drop.low is None or f2_drop.high is None or not f2_drop.high > f2_drop.low:
        return None
    z = float(norm.ppf((1 + LEVEL) / 2))
    standard_error = (f2_drop.high - f2_drop.low) / (2 * z)
    return (z + float(norm.ppf(power))) * standard_error
