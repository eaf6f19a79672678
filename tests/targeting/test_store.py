from __future__ import annotations

import logging
from pathlib import Path

import pytest

from surgery.targeting.store import Reading, Store, cache_folder

ONE = Reading(0.5, 0.49, 0.51, 5.0, 10.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SURGERY_CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_readings_are_there_for_the_same_model_machine_and_place_only(folder: Path) -> None:
    Store.of("net", "machine", "eager").keep({"a": ONE})
    Store.of("net", "machine", "eager").keep({"b": ONE})
    assert Store.of("net", "machine", "eager").readings == {"a": ONE, "b": ONE}
    assert Store.of("net", "machine", "onnxruntime").readings == {}
    assert all(path.suffix == ".json" for path in (folder / "latency").iterdir())


def test_a_file_that_is_broken_is_measured_anew(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.of("net")
    store.keep({"a": ONE})
    store.path.write_text(store.path.read_text()[:20])
    with caplog.at_level(logging.WARNING, "surgery"):
        again = Store.of("net")
    assert again.readings == {}
    assert "measured anew" in caplog.text
    again.keep({"b": ONE})
    assert Store.of("net").readings == {"b": ONE}


@pytest.mark.parametrize(
    "reading", [Reading(0.0, 0, 0, 0, 0), Reading(-0.5, -1, 1, 5.0, 10.0), Reading(0.5, 0, 1, 5, 0)]
)
def test_what_is_no_time_is_measured_anew(folder: Path, reading: Reading, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.of("net")
    store.keep({"a": reading})
    with caplog.at_level(logging.WARNING, "surgery"):
        assert Store.of("net").readings == {}
    assert "it holds what is no time" in caplog.text


def test_two_at_once_keep_what_both_measured(folder: Path) -> None:
    one, other = Store.of("net"), Store.of("net")
    one.keep({"a": ONE})
    other.keep({"b": ONE})
    assert Store.of("net").readings == {"a": ONE, "b": ONE}


def test_nothing_half_written_is_left(folder: Path) -> None:
    store = Store.of("net")
    store.path.mkdir(parents=True)  # a folder in its place
    store.keep({"a": ONE})
    assert list(store.path.parent.iterdir()) == [store.path]


def test_a_folder_that_cannot_be_written_forgets_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("a file in its place")
    store = Store.of("net")
    with caplog.at_level(logging.WARNING, "surgery"):
        store.keep({"a": ONE})
    assert store.readings == {"a": ONE}
    assert "cannot be kept" in caplog.text


def test_the_users_own_cache_folder_is_the_place_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SURGERY_CACHE_DIR", raising=False)
    assert cache_folder().parts[-2:] == ("surgery", "latency")
