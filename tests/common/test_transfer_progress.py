"""Progress of transfers: the lines of a log."""

from __future__ import annotations

from pipeline_common import transfer_progress
from pipeline_common.transfer_progress import track_bytes
from tests.common.made_clock import Clock


def test_a_transfers_line_says_how_much_and_how_fast(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr(transfer_progress.time, "monotonic", clock)
    with caplog.at_level("INFO"), track_bytes("uploading train/1", 64 << 20) as moved:
        clock.now += 4
        moved(8 << 20)
        clock.now += 12
        moved(24 << 20)
        # A part that was cut off is not there any more.
        moved(-(4 << 20))
        clock.now += 12
        moved(8 << 20)
    # 32 MiB in 16 s, 36 MiB in 28 s; nothing before ten seconds have passed.
    assert [record.getMessage() for record in caplog.records] == [
        "uploading train/1: 32.0 MiB of 64.0 MiB (2.0 MiB/s)",
        "uploading train/1: 36.0 MiB of 64.0 MiB (1.3 MiB/s)",
    ]


def test_a_small_transfer_says_nothing(monkeypatch, caplog):
    monkeypatch.setattr(transfer_progress, "LINE_EVERY_S", 0.0)
    with caplog.at_level("INFO"), track_bytes("uploading prepare/1", 1 << 20) as moved:
        moved(1 << 20)
    assert caplog.records == []
