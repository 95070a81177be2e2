import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tddsr.downloads import fetch as module
from tddsr.downloads import known as published
from tddsr.downloads.cache import cache_folder
from tddsr.downloads.fetch import fetch
from tddsr.downloads.known import S_LAB, PublishedFile
from tddsr.errors import DownloadError, ModelError, TddsrError, WeightsError
from tddsr.weights.registry import MODELS
from tests.server import Server, serving

CONTENT = os.urandom(2_000_000)
HASH = sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    folder: Path = tmp_path / "new" / "cache"
    monkeypatch.setattr(module, "WAITS", (0, 0, 0))
    monkeypatch.setenv("TDDSR_CACHE", str(folder))
    monkeypatch.delenv("TDDSR_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"a.pth": CONTENT}) as server:
        yield server


def known(server: Server, size: int | None = None, sha256: str | None = HASH, name: str = "a.pth") -> PublishedFile:
    return PublishedFile(server.url(name), S_LAB, size, sha256)


def fails(file: PublishedFile, match: str) -> str:
    with pytest.raises(DownloadError, match=match) as caught:
        fetch(file)
    message = str(caught.value)
    assert "\n" not in message
    assert not (cache_folder() / file.name).exists()
    return message


def test_a_file_comes_whole_and_only_once(server, cache):
    for _ in range(2):
        assert fetch(known(server, len(CONTENT))) == cache / "a.pth"
        assert (cache / "a.pth").read_bytes() == CONTENT
    assert server.requests == [None]
    assert {path.name for path in cache.iterdir()} <= {"a.pth", "a.pth.lock"}


def test_a_cut_connection_goes_on_where_it_ended(server):
    server.cuts = [700_000, 500_000]
    assert fetch(known(server)).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=700000-", "bytes=1200000-"]
    assert server.sent == len(CONTENT)


def test_the_next_call_goes_on_too(server):
    server.cuts = [300_000, 0, 0, 0]
    fails(known(server), "cut off after 300000 of 2000000")
    fetch(known(server))
    assert server.requests[-1] == "bytes=300000-"
    assert server.sent == len(CONTENT)


@pytest.mark.parametrize("how", ["ranges", "etags"])
def test_a_server_that_cannot_go_on_starts_anew(how):
    with serving({"a.pth": CONTENT}, **{how: False}) as server:
        server.cuts = [700_000]
        assert fetch(known(server)).read_bytes() == CONTENT
        assert server.sent == len(CONTENT) + 700_000


def test_a_file_that_changed_on_the_server_starts_anew(server):
    server.cuts = [300_000, 0, 0, 0]
    file = known(server, sha256=None)
    fails(file, "cut off")
    server.files["a.pth"] = CONTENT[::-1]
    assert fetch(file).read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_file_starts_anew(server, cache):
    cache.mkdir(parents=True)
    (cache / "a.pth.part").write_bytes(CONTENT + b"more")
    (cache / "a.pth.version").write_text(f'"{HASH}"')
    assert fetch(known(server)).read_bytes() == CONTENT


def test_a_part_that_is_whole_is_not_downloaded_again(server, cache):
    cache.mkdir(parents=True)
    (cache / "a.pth.part").write_bytes(CONTENT)
    assert fetch(known(server, len(CONTENT))).read_bytes() == CONTENT
    assert server.requests == []


def test_a_server_may_not_say_how_long_the_file_is():
    with serving({"a.pth": CONTENT}, lengths=False) as server:
        assert fetch(known(server)).read_bytes() == CONTENT


def test_a_wrong_file_is_deleted_and_reported(server, cache):
    fails(known(server, sha256="00ff"), f"has sha256 {HASH}, not 00ff")
    fails(known(server, 7), "has 2000000 bytes, not 7")
    assert not (cache / "a.pth.part").exists()
    (cache / "a.pth").write_bytes(CONTENT[:-1])  # damaged since
    fails(known(server), "sha256")
    fetch(known(server))


def test_an_unknown_hash_is_recorded_and_holds_from_then_on(server, cache):
    file = known(server, sha256=None)
    target = fetch(file)
    assert (cache / "a.pth.sha256").read_text().strip() == HASH
    fetch(file)
    target.write_bytes(b"x" + CONTENT[1:])
    fails(file, "sha256")
    server.files["a.pth"] = CONTENT[::-1]
    fails(file, rf"not {HASH}: it was deleted; .* delete .*a\.pth\.sha256")


def test_what_cannot_be_had_is_one_line(server, cache, monkeypatch, tmp_path):
    fails(known(server, name="b.pth"), r"b\.pth \(HTTP 404 Not Found\)")
    with serving({}) as gone:
        pass
    message = fails(known(gone, name="c.pth"), "Connection refused")
    for part in (gone.url("c.pth"), str(cache), "TDDSR_CACHE", "TDDSR_MIRROR"):
        assert part in message
    (tmp_path / "file").touch()
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "file"))
    fails(known(server), "cannot be kept")


def test_an_error_of_the_network_is_no_error_of_usage():
    assert issubclass(DownloadError, ModelError)  # for who loads a model
    assert issubclass(DownloadError, WeightsError)  # and a feature network
    assert (TddsrError.exit_code, ModelError.exit_code, DownloadError.exit_code) == (1, 2, 1)


def test_a_file_that_was_put_there_by_hand_asks_nobody(cache):
    cache.mkdir(parents=True)
    (cache / "a.pth").write_bytes(CONTENT)
    with serving({}) as gone:
        pass
    assert fetch(known(gone)).read_bytes() == CONTENT


def test_a_cache_may_be_read_only(server, cache):
    fetch(known(server))
    (cache / "a.pth.lock").unlink(missing_ok=True)
    cache.chmod(0o500)
    try:
        assert fetch(known(server)).read_bytes() == CONTENT
        assert not (cache / "a.pth.lock").exists()
    finally:
        cache.chmod(0o700)


@pytest.mark.parametrize("kind", ["folder", "url", "url/"])
def test_a_mirror_is_asked_instead_of_the_origin(server, monkeypatch, tmp_path, kind):
    origin = Server({}, base="http://127.0.0.1:1")
    monkeypatch.setenv("TDDSR_MIRROR", {"folder": str(tmp_path), "url": server.base, "url/": f"{server.base}/"}[kind])
    (tmp_path / "a.pth").write_bytes(CONTENT)
    assert fetch(known(origin, len(CONTENT))).read_bytes() == CONTENT
    assert len(server.requests) == (kind != "folder")
    assert str(tmp_path if kind == "folder" else server.base) in fails(known(origin, name="b.pth"), r"b\.pth")


def test_a_mirrors_file_is_verified_too_and_has_our_name(server, monkeypatch, tmp_path):
    monkeypatch.setenv("TDDSR_MIRROR", str(tmp_path))
    (tmp_path / "ours.bin").write_bytes(CONTENT)
    file = PublishedFile(server.url("a.pth"), S_LAB, None, "00ff", saved_as="ours.bin")
    fails(file, f"has sha256 {HASH}, not 00ff")
    assert server.requests == []


def test_processes_that_want_the_same_file_wait_for_each_other(server, cache):
    code = (
        "import sys; from tddsr.downloads.fetch import fetch; from tddsr.downloads.known import *\n"
        "fetch(PublishedFile(sys.argv[1], S_LAB, sha256=sys.argv[2])); assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, server.url("a.pth"), HASH]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (cache / "a.pth").read_bytes() == CONTENT
    assert server.requests == [None]
    assert sorted(S_LAB.name in text for text in said) == [False, True]


def test_the_licence_is_shown_before_the_first_download(server, capsys):
    fetch(known(server, len(CONTENT)))
    shown = capsys.readouterr().err
    assert S_LAB.name in shown
    assert S_LAB.url in shown
    fetch(known(server, len(CONTENT)))
    assert S_LAB.name not in capsys.readouterr().err


def test_known_files_have_names_of_their_own():
    files = [file for file in vars(published).values() if isinstance(file, PublishedFile)]
    assert {file for model in MODELS.values() for file in model.files} < set(files)
    assert len({file.name for file in files}) == len(files) == 10
    assert {model.schedule["steps"] for model in MODELS.values()} == {1, 4, 15}
    assert {name for name, model in MODELS.items() if model.role == "student"} == {"sinsr", "sinsr-v2"}
