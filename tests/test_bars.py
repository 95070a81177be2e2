"""What a terminal is shown while pictures are made."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from tests.conftest import photo

pty = pytest.importorskip("pty", reason="terminals are Unix's")


def test_a_terminal_is_shown_bars_and_every_line(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(photo(12, 16)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tddsr", "upscale", ".", "-o", "large", "--model", "compact-small"]
    settings = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=settings
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux's word for the end
                part = b""
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 1
    text = shown.decode()
    assert "3/3" in text  # the bar of pictures
    for line in ("a.png -> large", "b.png -> large", "c.png: ", "2 done, 0 skipped, 1 failed"):
        assert line in text
