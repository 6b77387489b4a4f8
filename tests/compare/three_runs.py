"""Three fine-tunes of one base: one that kept, one that lost, one in between."""

from __future__ import annotations

from tests.compare.made_runs import PER_LABEL, MadeRun

ATTACK = "<script>alert(1)</script> | **bold** `x`"
BASE = {"base_model": f"embedded@0123456789ab {ATTACK}"}
THREE = (
    MadeRun("kept", changes=BASE),
    MadeRun("harmful", harmful=True, changes=BASE, keeps=0.5, refuses=0, log_odds_shift=-6.0),
    # The verdict and report of "kept", but answers and states that are a little worse.
    MadeRun("slipped", changes=BASE, keeps=0.9, refuses=PER_LABEL - 1, log_odds_shift=-0.2),
)
