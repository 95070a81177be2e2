import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import tddsr
from tddsr import __version__
from tddsr.device import describe
from tddsr.weights.file import save_model
from tddsr.weights.names import find_model, list_models
from tddsr.weights.registry import MODELS
from tests.conftest import photo
from tests.test_cli import call


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "cache"))


def test_models_lists_every_name_with_its_licence_and_downloads_nothing(tmp_path):
    result = call("models", "--json")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["name"] for line in lines] == ["compact", "compact-small", *MODELS]
    for line in lines:
        if line["where"] == "shipped":
            assert line["size"] == find_model(line["name"]).stat().st_size
        else:
            assert MODELS[line["name"]].file.licence.name in line["licence"]
    assert not (tmp_path / "cache").exists()


def test_the_table_of_models_has_a_row_for_each():
    result = call("models")
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if not line.startswith("  ")}
    assert set(rows) == {"name", *(model.name for model in list_models())}
    for model in list_models():
        assert model.where in rows[model.name]


def test_info_is_lines_to_paste(tmp_path, monkeypatch):
    monkeypatch.setenv("TDDSR_FEATURES", str(tmp_path / "weights"))
    result = call("info")
    assert result.exit_code == 0
    found = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert found == {"tddsr": __version__, **describe()}
    assert found["tddsr"] == tddsr.__version__
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert found["cache"] == str(tmp_path / "cache")
    assert found["TDDSR_FEATURES"] == str(tmp_path / "weights")
    assert ("cuda:0" in found["torch devices"]) == torch.cuda.is_available()


def test_the_shell_completes_commands():
    code = "import sys; sys.argv = ['tddsr']\nfrom tddsr.cli import main\nmain()\n"
    environment = {**os.environ, "_TDDSR_COMPLETE": "complete_bash", "COMP_WORDS": "tddsr mo", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["models"]


def test_dir_shows_what_there_is_and_waits_for_no_heavy_import():
    code = (
        "import sys, tddsr\n"
        "names = dir(tddsr)\n"
        "assert issubclass(tddsr.DownloadError, tddsr.ModelError) and issubclass(tddsr.UsageError, tddsr.TddsrError)\n"
        "heavy = {'torch', 'PIL', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'Upscaler', 'load', 'upscale', 'TddsrError', 'ImageError'} <= set(names)\n"
        "assert all(getattr(tddsr, name) for name in names)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_upscale_keeps_the_model_and_gives_what_upscaler_gives(student, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_model(student, path)
    picture = photo(16, 20)
    expected = tddsr.load(path, device="cpu")(picture, scale=2, seed=3)
    assert np.array_equal(tddsr.upscale(picture, model=path, device="cpu", scale=2, seed=3), expected)
    path.unlink()  # it is loaded already
    assert not np.array_equal(tddsr.upscale(picture, model=path, device="cpu", scale=2, seed=4), expected)
    with pytest.raises(tddsr.ModelError):
        tddsr.upscale(picture, model="no-such-model")
