import os
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tddsr.errors import ModelError
from tddsr.weights import download as module
from tddsr.weights.download import download
from tddsr.weights.published import AUTOENCODER, MODELS, S_LAB, PublishedFile, fetch
from tests.server import Server, serving

CONTENT = os.urandom(2_000_000)
HASH = sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "WAITS", (0, 0, 0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"a.pth": CONTENT}) as server:
        yield server


def fails(server: Server, target: Path, match: str, **expected) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        download(server.url(target.name), target, **expected)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_a_file_comes_whole_and_only_once(server, tmp_path):
    target = tmp_path / "new" / "folder" / "a.pth"
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        download(
            server.url("a.pth"), target, size=len(CONTENT), sha256=HASH, progress=lambda *numbers: seen.append(numbers)
        )
        assert target.read_bytes() == CONTENT
    assert server.requests == [None]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert {path.name for path in target.parent.iterdir()} <= {"a.pth", "a.pth.lock"}


def test_a_cut_connection_goes_on_where_it_ended(server, tmp_path):
    server.cuts = [700_000, 500_000]
    assert download(server.url("a.pth"), tmp_path / "a.pth", sha256=HASH).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=700000-", "bytes=1200000-"]
    assert server.sent == len(CONTENT)


def test_the_next_call_goes_on_too(server, tmp_path):
    server.cuts = [300_000, 0, 0, 0]
    fails(server, tmp_path / "a.pth", "cut off after 300000 of 2000000")
    download(server.url("a.pth"), tmp_path / "a.pth", sha256=HASH)
    assert server.requests[-1] == "bytes=300000-"
    assert server.sent == len(CONTENT)


@pytest.mark.parametrize("how", ["ranges", "etags"])
def test_a_server_that_cannot_go_on_starts_anew(tmp_path, how):
    with serving({"a.pth": CONTENT}, **{how: False}) as server:
        server.cuts = [700_000]
        assert download(server.url("a.pth"), tmp_path / "a.pth", sha256=HASH).read_bytes() == CONTENT
        assert server.sent == len(CONTENT) + 700_000


def test_a_file_that_changed_on_the_server_starts_anew(server, tmp_path):
    server.cuts = [300_000, 0, 0, 0]
    fails(server, tmp_path / "a.pth", "cut off")
    server.files["a.pth"] = CONTENT[::-1]
    assert download(server.url("a.pth"), tmp_path / "a.pth").read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_file_starts_anew(server, tmp_path):
    (tmp_path / "a.pth.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.pth.version").write_text(f'"{HASH}"')
    assert download(server.url("a.pth"), tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_part_that_is_whole_is_not_downloaded_again(server, tmp_path):
    (tmp_path / "a.pth.part").write_bytes(CONTENT)
    assert download(server.url("a.pth"), tmp_path / "a.pth", size=len(CONTENT)).read_bytes() == CONTENT
    assert server.requests == []


def test_a_server_may_not_say_how_long_the_file_is(tmp_path):
    with serving({"a.pth": CONTENT}, lengths=False) as server:
        assert download(server.url("a.pth"), tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_wrong_file_is_deleted_and_reported(server, tmp_path):
    target = tmp_path / "a.pth"
    fails(server, target, f"has sha256 {HASH}, not 00ff", sha256="00ff")
    fails(server, target, "has 2000000 bytes, not 7", size=7)
    assert not (tmp_path / "a.pth.part").exists()
    target.write_bytes(CONTENT[:-1])  # damaged since
    fails(server, target, "sha256", sha256=HASH)
    download(server.url("a.pth"), target, sha256=HASH)


def test_an_unknown_hash_is_recorded_and_holds_from_then_on(server, tmp_path):
    target = tmp_path / "a.pth"
    download(server.url("a.pth"), target)
    assert (tmp_path / "a.pth.sha256").read_text().strip() == HASH
    download(server.url("a.pth"), target)
    target.write_bytes(b"x" + CONTENT[1:])
    fails(server, target, "sha256")
    server.files["a.pth"] = CONTENT[::-1]
    fails(server, target, rf"not {HASH}: it was deleted; .* delete .*a\.pth\.sha256")


def test_what_cannot_be_had_is_one_line(server, tmp_path):
    fails(server, tmp_path / "b.pth", r"b\.pth \(HTTP 404 Not Found\)")
    with serving({}) as gone:
        pass
    fails(gone, tmp_path / "c.pth", "Connection refused")
    (tmp_path / "file").touch()
    fails(server, tmp_path / "file" / "a.pth", "cannot be kept")


def test_those_who_want_the_same_file_wait_for_each_other(server, tmp_path):
    threads = [
        threading.Thread(target=download, args=(server.url("a.pth"), tmp_path / "a.pth"), kwargs={"sha256": HASH})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert server.requests == [None]


def test_the_licence_is_shown_before_the_first_download(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "cache"))
    file = PublishedFile(server.url("a.pth"), S_LAB, len(CONTENT), HASH)
    assert fetch(file) == tmp_path / "cache" / "a.pth"
    shown = capsys.readouterr().err
    assert S_LAB.name in shown
    assert S_LAB.url in shown
    fetch(file)
    assert S_LAB.name not in capsys.readouterr().err


def test_known_files_have_names_of_their_own():
    files = [AUTOENCODER, *(model.file for model in MODELS.values())]
    assert len({file.name for file in files}) == len(files)
    assert {model.schedule.steps for model in MODELS.values()} == {1, 4, 15}
    assert {name for name, model in MODELS.items() if model.role == "student"} == {"sinsr", "sinsr-v2"}
