"""Files and folders that are whole or absent, and folders that know when they were changed."""

import os
import stat

import pytest

from unicross.files import beside, damage, folder_beside, replace_link, write_manifest, write_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")

    def break_off():
        with beside(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert path.read_text() == "one"
    with beside(path) as partial:
        partial.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_appears_when_it_is_full_and_others_may_read_it(tmp_path):
    with folder_beside(tmp_path / "made") as partial:
        (partial / "secret").touch(mode=0o600)
        assert not (tmp_path / "made").exists()
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE((tmp_path / "made" / "secret").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    with pytest.raises(RuntimeError), folder_beside(tmp_path / "other"):
        raise RuntimeError
    assert sorted(os.listdir(tmp_path)) == ["made", "plain"]


def test_a_link_points_at_the_old_or_the_new(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        replace_link(tmp_path / "link", tmp_path / name)
        assert (tmp_path / "link").resolve().name == name


def test_a_sealed_folder_names_what_was_changed(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("a", "inner/b"):
        (tmp_path / name).write_bytes(bytes(1000))
    write_manifest(tmp_path)
    assert damage(tmp_path) is None
    (tmp_path / "inner" / "b").write_bytes(bytes(999) + b"\1")
    assert damage(tmp_path) == f"{tmp_path}/inner/b: not as it was written"
    (tmp_path / "inner" / "b").unlink()
    assert "inner/b" in damage(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    assert "cannot be read" in damage(tmp_path)
