"""The pieces of Python in docs/examples.md do what they say."""

import ast
import io
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import numpy as np
import pytest
from PIL import Image

import tddsr
from tddsr.engines.torch import TorchEngine
from tddsr.upscaler import Upscaler
from tests.conftest import photo

PAGE = (Path(__file__).parents[1] / "docs" / "examples.md").read_text(encoding="utf-8")


def pieces(marked: str = "") -> list[str]:
    return re.findall(rf"^```python{marked}\n(.+?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def piece(word: str) -> str:
    (found,) = [code for code in pieces() if word in code]
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        Image.fromarray(photo(12, 16)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(code: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "example"}
    exec(code, names)
    return names


def test_every_piece_is_python():
    assert len(pieces()) == 4
    for code in pieces() + pieces(" no-run"):
        ast.parse(code)


def test_the_notebook_shows_both_pictures_side_by_side(folder):
    both = run(piece("both.paste"))["both"]
    assert isinstance(both, Image.Image)
    assert both.size == (2 * 64, 48)


def test_the_server_answers_with_a_picture_or_the_reason(folder):
    app = run(piece("wsgi.input"))["app"]
    told: list[str] = []

    def post(body: bytes, **settings: object) -> bytes:
        environ: dict[str, object] = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **settings}
        setup_testing_defaults(environ)
        return b"".join(app(environ, lambda status, _: told.append(status)))  # type: ignore[operator]

    with Image.open(io.BytesIO(post((folder / "photo.jpg").read_bytes()))) as large:
        assert (large.format, large.size) == ("JPEG", (64, 48))
    assert b"picture" in post(b"no picture")
    post(b"", CONTENT_LENGTH="99999999999")
    assert [status[:3] for status in told] == ["200", "400", "413"]


def test_processes_share_the_pictures(folder):
    (folder / "example.py").write_text(piece("ProcessPoolExecutor"))
    done = subprocess.run([sys.executable, "example.py"], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [os.path.join("photos", f"{name}_x4.jpg") for name in "ab"]  # noqa: PTH118
    assert Image.open(folder / "photos" / "b_x4.jpg").size == (64, 48)


def test_a_row_with_a_bad_picture_is_a_row(folder):
    enlarge = run(piece("def enlarge"))["enlarge"]
    good, bad = (
        enlarge({"path": name, "bytes": content})  # type: ignore[operator]
        for name, content in (("a", (folder / "photo.jpg").read_bytes()), ("b", b"no picture"))
    )
    assert Image.open(io.BytesIO(good["large"])).size == (64, 48)
    assert bad["large"] == b""
    assert bad["error"]


# -- what the page relies on -------------------------------------------------------------------------------------------


def test_a_pickled_upscaler_is_loaded_once_with_the_same_options():
    picture = photo(12, 16)
    upscaler = tddsr.load("compact-small", device="cpu", tile=24, threads=1)
    sent = pickle.dumps(upscaler)
    assert len(sent) < 1000
    first, second = pickle.loads(sent), pickle.loads(sent)
    assert first is second
    assert first is not upscaler
    assert first.enlarger.tile == 24
    assert np.array_equal(first(picture), upscaler(picture))


def test_an_upscaler_around_an_engine_cannot_be_pickled(student):
    with pytest.raises(tddsr.UsageError, match="load"):
        pickle.dumps(Upscaler(TorchEngine(student)))


def test_one_upscaler_serves_several_threads():
    upscaler = tddsr.load("compact-small", device="cpu", threads=1)
    pictures = [photo(20 + n, 24, seed=n) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(upscaler, pictures))
    for picture, large in zip(pictures, together, strict=True):
        assert np.array_equal(large, upscaler(picture))


@pytest.mark.parametrize("threads", [0, -1])
def test_impossible_numbers_of_threads_are_refused(threads):
    with pytest.raises(tddsr.UsageError, match=str(threads)):
        tddsr.load("compact-small", threads=threads)


def test_any_number_of_threads_gives_the_same_pixels():
    picture = photo(40, 52)
    one, two = (tddsr.load("compact-small", device="cpu", threads=n)(picture) for n in (1, 2))
    assert np.abs(one.astype(int) - two).max() <= 1
