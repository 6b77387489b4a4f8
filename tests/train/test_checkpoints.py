from __future__ import annotations

from pathlib import Path

import pytest

from jobs.train.checkpoints import MARKER, mark_complete, newest_complete, prune

MADE_BY = {"device": "cpu", "quantization": "nf4"}


def make(root: Path, step: int, *, complete: bool = True) -> Path:
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "trainer_state.json").write_text("{}")
    if complete:
        mark_complete(folder, MADE_BY)
    return folder


def test_nothing_there(tmp_path: Path) -> None:
    assert newest_complete(tmp_path / "absent", MADE_BY) is None


def test_steps_are_numbers_not_text(tmp_path: Path) -> None:
    make(tmp_path, 9)
    newest = make(tmp_path, 10)
    found = newest_complete(tmp_path, MADE_BY)
    assert found is not None
    assert (found.folder, found.step) == (newest, 10)


def test_an_unfinished_newer_one_is_passed_over_and_deleted(tmp_path: Path) -> None:
    kept, unfinished = make(tmp_path, 10), make(tmp_path, 20, complete=False)
    found = newest_complete(tmp_path, MADE_BY)
    assert found is not None
    assert found.folder == kept
    assert not unfinished.exists()


@pytest.mark.parametrize("damage", ["cut", "missing", "marker"])
def test_a_damaged_newer_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    kept, damaged = make(tmp_path, 10), make(tmp_path, 20)
    weights = damaged / "adapter_model.safetensors"
    if damage == "marker":
        # A disk that lost power may leave a file of the right length full of zeros.
        (damaged / MARKER).write_bytes(bytes((damaged / MARKER).stat().st_size))
    else:
        weights.write_bytes(b"wei") if damage == "cut" else weights.unlink()
    found = newest_complete(tmp_path, MADE_BY)
    assert found is not None
    assert found.folder == kept
    assert not damaged.exists()


def test_other_arithmetic_starts_anew(tmp_path: Path) -> None:
    folder = make(tmp_path, 10)
    assert newest_complete(tmp_path, {**MADE_BY, "quantization": "none"}) is None
    assert not folder.exists()


def test_pruning_keeps_the_newest_two(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        make(tmp_path, step)
    prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-20"]


def test_what_is_not_a_checkpoint_stays(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-last").mkdir()
    (tmp_path / "README.md").touch()
    assert newest_complete(tmp_path, MADE_BY) is None
    assert len(list(tmp_path.iterdir())) == 2


def test_the_marker_is_written_after_the_files_it_lists(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    marker = (folder / MARKER).stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= marker for path in folder.iterdir())
