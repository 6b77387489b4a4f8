from __future__ import annotations

import pytest

from jobs.analyze.stage import run
from pipeline_common.context import Context, Outputs
from tests.analyze import made_evidence as made
from tests.analyze.report_page import Page, read_page


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, Outputs, Page]:
    """The stage over hand-made artifacts in a real store and a real database: read it, change nothing of it."""
    context = made.make_context(tmp_path_factory.mktemp("analyze"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("IMAGE_DIGEST", made.OWN_IMAGE)
        outputs = run(context)
    return context, outputs, read_page(context)
