"""Folders are put in place whole, or what stood there stays."""

from pathlib import Path

import pytest

from posteriori.storage import put_folder


def folder(place, words):
    place.mkdir()
    (place / "words").write_text(words)
    return place


def test_a_folder_takes_the_place_of_another(tmp_path):
    place = folder(tmp_path / "kept", "old")
    put_folder(folder(tmp_path / "new", "new"), place)
    assert (place / "words").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_what_stood_there_stays_where_the_new_cannot_be_put(tmp_path, monkeypatch):
    place, new = folder(tmp_path / "kept", "old"), folder(tmp_path / "new", "new")
    replace = Path.replace

    def refuse(self, target):
        if self == new:
            raise OSError("no room")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="no room"):
        put_folder(new, place)
    assert (place / "words").read_text() == "old"
