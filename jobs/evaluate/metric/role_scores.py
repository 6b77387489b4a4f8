"""Score one model in one scope: its indices, and the resamples that their intervals come from.

Legend: n rows of the scope, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.metric import indices
from jobs.evaluate.metric.bootstrap import interval, recentre
from jobs.evaluate.metric.gram import Gram, observed_scatter, resampled_scatter
from jobs.evaluate.metric.indices import Bools, Floats
from pipeline_common.measures import Indices


@dataclass(frozen=True)
class RoleScore:
    """One model's indices in one scope, with the recentred clouds [B] of those that get an interval."""

    xbi: float | None
    chi: float
    aqi: float
    f2: float
    r2_adj: float
    aqi_cloud: Floats
    f2_cloud: Floats

    def to_indices(self) -> Indices:
        """The record, intervals from the clouds."""
        return Indices(
            xbi=self.xbi,
            chi=self.chi,
            aqi=interval(self.aqi, self.aqi_cloud),
            f2=interval(self.f2, self.f2_cloud),
            r2_adj=self.r2_adj,
        )


def score_role(gram: Gram, unsafe: Bools, weights: NDArray[np.floating], lam: float) -> RoleScore:
    """Score one model in one scope.

    Args:
        gram: of the scope's n rows.
        unsafe: labels [n].
        weights: C [B, n].
        lam: AQI's weight of the compactness term.

    Raises:
        UndefinedScore: fewer than two rows in a group, or no spread within the groups.
    """
    s = observed_scatter(gram, unsafe)
    f2 = float(indices.f2(s))
    f2_cloud = recentre(indices.f2(resampled_scatter(gram, unsafe, weights)), f2)
    return RoleScore(
        xbi=float(indices.xie_beni(s)) if s.between_sq > 0 else None,
        chi=float(indices.calinski_harabasz(s)),
        aqi=float(indices.aqi(s, lam)),
        f2=f2,
        r2_adj=float(indices.r2_adj(s)),
        aqi_cloud=indices.aqi_from_f2(f2_cloud, s.n_safe, s.n_unsafe, lam),
        f2_cloud=f2_cloud,
    )


def average_roles(roles: Sequence[RoleScore]) -> RoleScore:
    """Uniform mean of scores and of their clouds, resample by resample."""
    xbi = [r.xbi for r in roles if r.xbi is not None]
    return RoleScore(
        xbi=float(np.mean(xbi)) if len(xbi) == len(roles) else None,
        chi=float(np.mean([r.chi for r in roles])),
        aqi=float(np.mean([r.aqi for r in roles])),
        f2=float(np.mean([r.f2 for r in roles])),
        r2_adj=float(np.mean([r.r2_adj for r in roles])),
        aqi_cloud=np.mean([r.aqi_cloud for r in roles], axis=0),
        f2_cloud=np.mean([r.f2_cloud for r in roles], axis=0),
    )
