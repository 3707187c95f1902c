"""Decoding in processes that can be ended: time, memory, and one kind of work not waiting for another."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from bombs import scan_bomb
from fake_model import FakeModel
from serving import make_store, png, refusal

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from unicross.data.decoding import ImageError
from unicross.serve import decoders as module
from unicross.serve.app import create_app
from unicross.serve.decoders import Busy, Decoders
from unicross.serve.service import Settings

UPLOAD = {"do": "upload", "at_least": 64, "max_pixels": 10**9}


def blank(side: int, mode: str = "1") -> bytes:
    """A large picture in few bytes."""
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    monkeypatch.setattr(module, "PROCESSES", 1)
    decoders = Decoders(seconds=60, max_pixels=1_000_000)
    yield decoders
    decoders.close()


def is_well(decoders: Decoders) -> bool:
    answer, pixels = decoders.run(UPLOAD, png("red"), wait_s=60)
    return answer["size"] == [30, 20] and len(pixels) == 30 * 20 * 3


def test_a_picture_that_takes_too_long_is_ended_and_the_next_one_decoded(decoders: Decoders) -> None:
    assert is_well(decoders)
    decoders._seconds = 0.001
    with pytest.raises(ImageError, match=r"takes more than 0.001 s") as caught:
        decoders.run(UPLOAD, blank(5000), wait_s=60)
    assert caught.value.fault == "too large"
    decoders._seconds = 60
    assert is_well(decoders)


def test_a_picture_that_takes_too_much_memory_is_refused_and_the_next_one_decoded(decoders: Decoders) -> None:
    with pytest.raises(ImageError, match="memory") as caught:
        decoders.run(UPLOAD, blank(9000), wait_s=60)
    assert caught.value.fault == "too large"
    assert is_well(decoders)


def test_a_decoder_that_breaks_down_is_replaced(decoders: Decoders) -> None:
    with pytest.raises(ImageError, match="broke down"):
        decoders.run({"do": "nothing that it knows"}, b"", wait_s=60)
    assert is_well(decoders)


def test_a_decoder_has_no_secrets_and_no_code_of_the_folder_where_it_starts(
    decoders: Decoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('code of a stranger ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNICROSS_API_KEY", "secret of the server")
    assert is_well(decoders)
    (process,) = decoders._all
    if Path("/proc").is_dir():
        environment = Path(f"/proc/{process._process.pid}/environ").read_bytes()
        assert b"PATH=" in environment
        assert b"secret of the server" not in environment


def test_who_waits_too_long_is_told(decoders: Decoders) -> None:
    with decoders._free, pytest.raises(Busy):
        decoders.run(UPLOAD, png("red"), wait_s=0)


def test_closing_ends_a_decoder_at_work(decoders: Decoders) -> None:
    assert is_well(decoders)
    (process,) = decoders._all
    decoders.close()
    assert process._process.poll() is not None


def test_thumbnails_do_not_starve_uploads_nor_bombs_honest_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all decoders of stored pictures at work, and bombs sent in, an honest upload is answered."""
    monkeypatch.setattr(module, "PROCESSES", 1)
    app = create_app(FakeModel(), make_store(tmp_path), Settings(timeout_s=60))
    with TestClient(app, base_url="http://localhost") as client:
        id = client.get("/search", params={"q": "red", "k": 1}).json()["hits"][0]["id"]
        pictures = app.state.service.pictures
        with pictures.decoders._free:  # as if it decoded a long one
            waiting = threading.Thread(target=client.get, args=(f"/images/{id}/thumbnail",))
            waiting.start()
            for _ in range(3):
                assert "more than 100 scans" in refusal(client.post("/search", content=scan_bomb(200)))[1]
            assert client.post("/search", content=png("red")).status_code == 200
        waiting.join()
