"""``tddsr eval``: its files, going on, and what it says of what cannot be scored."""

import csv
import io
import json
import math
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tddsr.cli import app
from tddsr.evaluation import run as evaluation
from tddsr.evaluation.pictures import find_pictures
from tddsr.evaluation.protocol import versions
from tddsr.evaluation.results import read_result
from tddsr.metrics.frechet import INCEPTION, frechet_distance
from tddsr.metrics.table import METRICS, Setting, choose, load_scores
from tddsr.weights.file import save_model
from tests.conftest import photo

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def sets(pair_folders):
    """Options for two pairs."""
    return ["--hr", pair_folders / "hr", "--lr", pair_folders / "lr", "--device", "cpu"]


def test_a_table_and_its_protocol(sets, features, tmp_path):
    out = tmp_path / "out"
    done = run("bicubic", *sets, "--features", features, "--seeds", 1, "-o", out)
    assert done.exit_code == 0
    assert done.stdout.startswith("| method | PSNR | SSIM | LPIPS-Alex | LPIPS-VGG | NIQE |\n")
    assert done.stdout.splitlines()[2].startswith("| bicubic | ")
    assert done.stdout.splitlines()[2].endswith(" - |")  # 80x80 is too small for NIQE
    assert "2 pairs (hr with lr), x4, whole pictures" in done.stdout
    assert "NIQE not defined for 2 of 2 outputs" in done.stdout
    content = result(out)
    assert content["protocol"]["statement"] == done.stdout.splitlines()[-1]
    psnr = [score["values"]["PSNR"] for score in content["scores"]]
    assert f"| bicubic | {sum(psnr) / 2:.4f} |" in done.stdout


def test_several_presets_are_one_table(pair_folders, tmp_path):
    sharp = ["--hr", pair_folders / "hr", "--metrics", "psnr,tint", "--device", "cpu"]
    both = run("bicubic", "nearest", *sharp, "--preset", "web,clean", "-o", tmp_path / "out")
    assert both.exit_code == 0
    head, _, *rows = [line for line in both.stdout.splitlines() if line.startswith("|")]
    assert head == "| degradation | method | PSNR | Tint |"
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| {preset}", method] for preset in ("clean", "web") for method in ("bicubic", "nearest")
    ]
    for preset in ("clean", "web"):
        alone = run("bicubic", "nearest", *sharp, "--preset", preset)
        cells = [line.removeprefix("| ") for line in alone.stdout.splitlines() if line.startswith("| bicubic")]
        assert [row.removeprefix(f"| {preset} | ") for row in rows if row.startswith(f"| {preset} | bicubic")] == cells
        assert result(tmp_path / "out" / preset)["dataset"]["degradation"] == f"{preset}, seed 0"
    assert "no preset 'wbe'" in run("bicubic", *sharp, "--preset", "wbe").stderr
    assert (
        "leave it or --lr away" in run("bicubic", *sharp, "--lr", pair_folders / "lr", "--preset", "web,clean").stderr
    )


def test_the_files_hold_what_the_report_reads(sets, student, tmp_path):
    save_model(student, tmp_path / "ours.safetensors")
    out = tmp_path / "out"
    hr = f"truth={tmp_path / 'hr'}"
    metrics = "psnr,ssim,ms-ssim,niqe,fid"
    done = run("nearest", tmp_path / "ours.safetensors", hr, *sets, "--metrics", metrics, "--seeds", 2,
               "-o", out, "--save", "--workers", 2)  # fmt: skip
    assert done.exit_code == 1  # FID's weights
    content = result(out)
    assert content["format"] == "tddsr-eval-1"
    assert content["name"] == "out"
    assert len(content["dataset"].pop("digest")) == 16
    assert content["dataset"] == {
        "name": tmp_path.name, "hr": "hr", "lr": "lr", "degradation": None, "pictures": 2,
    }  # fmt: skip
    stated = {"scale": 4, "crop": None, "border": 0, "colour": "y", "tile": "auto", "dtype": "float32", "seeds": 2}
    assert stated.items() <= content["protocol"].items()
    assert {"tddsr", "torch", "python"} <= content["protocol"]["versions"].keys()
    assert list(content["metrics"]) == ["PSNR", "SSIM", "MS-SSIM", "NIQE", "FID"]
    assert content["metrics"]["PSNR"] == {"better": "higher", "range": [0, None], "needs": "reference", "missing": None}
    assert INCEPTION in content["metrics"]["FID"]["missing"]
    digests = {name: method.pop("digest") for name, method in content["methods"].items()}
    assert [name for name, digest in digests.items() if digest] == ["ours", "truth"]
    assert content["methods"] == {
        "nearest": {"spec": "nearest", "steps": None},
        "ours": {"spec": str(tmp_path / "ours.safetensors"), "steps": 1},
        "truth": {"spec": str(tmp_path / "hr"), "steps": None},
    }
    assert {*content["scores"][0]} == {"method", "picture", "seed", "values"}
    keys = [(score["method"], score["picture"], score["seed"]) for score in content["scores"]]
    assert keys == [
        ("nearest", "0", 0), ("nearest", "1", 0),
        ("ours", "0", 0), ("ours", "0", 1), ("ours", "1", 0), ("ours", "1", 1),
        ("truth", "0", 0), ("truth", "1", 0),
    ]  # fmt: skip
    assert content["scores"][-1]["values"]["PSNR"] == "inf"
    assert content["scores"][-1]["values"]["SSIM"] == pytest.approx(1)
    assert "| truth | inf | 1.0000 | - | - | not available |" in done.stdout
    assert (content["sets"], content["failures"]) == ([], [])
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["method", "picture", "seed", "PSNR", "SSIM", "MS-SSIM", "NIQE"]
    assert float(rows[0]["PSNR"]) == content["scores"][0]["values"]["PSNR"]
    assert rows[0]["NIQE"] == ""
    pictures = out / "pictures"
    assert np.array_equal(np.asarray(Image.open(pictures / "hr" / "1.png")), photo(80, 80, 1))
    assert np.array_equal(np.asarray(Image.open(pictures / "lr" / "1.png")), photo(20, 20, 1))
    assert {path.parent.name for path in pictures.glob("*/0.png")} == {"hr", "lr", "nearest", "ours", "truth"}


def test_a_model_that_ignores_noise_is_run_once_a_picture(sets, student, tmp_path):
    student.network.ignore_noise()
    save_model(student, tmp_path / "blind.safetensors")
    assert run(tmp_path / "blind.safetensors", *sets, "--metrics", "psnr", "-o", tmp_path / "out").exit_code == 0
    assert [(score["picture"], score["seed"]) for score in result(tmp_path / "out")["scores"]] == [("0", 0), ("1", 0)]


def test_it_goes_on_where_it_stopped(sets, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole" / "out", tmp_path / "stopped" / "out"
    arguments = ["bicubic", "nearest", *sets, "--metrics", "psnr,fd-vgg16", "--features", tmp_path]
    monkeypatch.setattr("tddsr.metrics.frechet.load_features", lambda *_, **__: _Means())
    assert run(*arguments, "-o", whole).exit_code == 0
    score, calls = evaluation._score, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(*args)

    monkeypatch.setattr(evaluation, "_score", interrupted)
    done = run(*arguments, "-o", stopped)
    assert done.exit_code == 130
    assert "goes on" in done.stderr
    assert len(result(stopped)["scores"]) == 2
    with (stopped / "journal.jsonl").open("ab") as file:
        file.write(b'{"method": "bicubic", "pic')  # killed in the middle of a line
    assert run(*arguments, "-o", stopped).exit_code == 0
    assert len(calls) == 5
    assert result(stopped) == result(whole)
    assert result(whole)["sets"][0]["values"]["FD-VGG16"] > 0
    assert run(*arguments, "-o", stopped).exit_code == 0
    assert len(calls) == 5
    assert result(stopped) == result(whole)
    # Pictures are made up for.
    assert run(*arguments, "-o", stopped, "--save").exit_code == 0
    assert len(list((stopped / "pictures").rglob("*.png"))) == 8


def test_older_files_are_read_and_gone_on_with(tmp_path, monkeypatch):
    """Both were written before the journal and the result had one schema."""
    golden = Path(__file__).parent / "golden" / "tddsr-eval-1"
    shutil.copytree(golden, tmp_path / "out")
    for name, side in (("hr", 80), ("lr", 20)):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(photo(side, side, number)).save(tmp_path / name / f"{number}.png")
    arguments = ["nearest", "--hr", tmp_path / "hr", "--lr", tmp_path / "lr", "--device", "cpu",
                 "--metrics", "psnr,niqe,fd-vgg16", "-o", tmp_path / "out"]  # fmt: skip
    monkeypatch.setattr("tddsr.metrics.frechet.load_features", lambda *_, **__: _Means())
    assert "holds scores by another protocol" in run(*arguments).stderr  # the pictures' files are others
    journal = tmp_path / "out" / "journal.jsonl"
    header, *lines = journal.read_text().splitlines()
    pictures = find_pictures(tmp_path / "hr", tmp_path / "lr")
    same = {"versions": versions(), "pictures": f"2 of {pictures.title} ({pictures.digest})"}
    journal.write_text("\n".join([json.dumps(json.loads(header) | same), *lines, ""]))
    monkeypatch.setattr(evaluation, "_score", None)
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith("theirs: 1: has no score from an earlier run")
    old, new = read_result(golden), read_result(tmp_path / "out")
    assert new.scores == old.scores
    assert new.means() == old.means()
    assert new.means()["truth"] == {"PSNR": math.inf, "FD-VGG16": pytest.approx(0, abs=1e-9)}
    assert [row.values["FD-VGG16"] for row in new.sets] == [
        pytest.approx(row.values["FD-VGG16"], abs=1e-9) for row in old.sets
    ]


def test_methods_join_those_of_earlier_runs(sets, tmp_path):
    for methods in (["bicubic"], ["nearest", "bicubic"]):
        assert run(*methods, *sets, "--metrics", "psnr", "-o", tmp_path / "out").exit_code == 0
    assert [score["method"] for score in result(tmp_path / "out")["scores"]] == ["bicubic"] * 2 + ["nearest"] * 2


def test_what_an_earlier_run_did_not_come_to_is_said_again(sets, tmp_path):
    """Else the means of different pictures would stand side by side, without a remark."""
    (tmp_path / "theirs").mkdir()
    Image.fromarray(photo(80, 80)).save(tmp_path / "theirs" / "0.png")
    out = ("--metrics", "psnr", "-o", tmp_path / "out")
    assert run(f"theirs={tmp_path / 'theirs'}", *sets, *out).exit_code == 1
    done = run("bicubic", *sets, *out)
    assert done.exit_code == 1
    assert [(f["method"], f["picture"]) for f in result(tmp_path / "out")["failures"]] == [("theirs", "1")]
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("theirs: 1: ")


@pytest.mark.parametrize(
    "changed", [["--border", 2], ["--colour", "rgb"], ["--limit", 1], ["--crop", 40], ["--metrics", "ssim"]]
)
def test_another_protocol_is_refused(sets, tmp_path, changed):
    arguments = ["bicubic", *sets, "--metrics", "psnr", "-o", tmp_path / "out"]
    assert run(*arguments).exit_code == 0
    before = (tmp_path / "out" / "result.json").read_bytes()
    done = run(*arguments, *changed)
    assert done.exit_code == 1
    assert "holds scores by another protocol" in done.stderr
    assert "choose another folder" in done.stderr
    assert (tmp_path / "out" / "result.json").read_bytes() == before


def test_other_weights_under_the_same_name_are_refused(sets, student, teacher, tmp_path):
    for model in (student, teacher):
        save_model(model, tmp_path / "m.safetensors")
        done = run(tmp_path / "m.safetensors", *sets, "--metrics", "psnr", "--seeds", 1, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "holds scores of other weights or pictures under the name m" in done.stderr


def test_other_pictures_under_the_same_names_are_refused(tmp_path):
    pictures = tmp_path / "truth"
    made = tmp_path / "made" / "0.bmp"
    arguments = [f"ours={made.parent}", "--hr", pictures, "--metrics", "psnr", "-o", tmp_path / "out"]
    for folder in (pictures, made.parent):
        folder.mkdir(exist_ok=True)
    for changed in (made, pictures / "0.bmp", None):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        for path in (made, pictures / "0.bmp"):
            Image.fromarray(photo(80, 80, 0)).save(path)
        assert run(*arguments).exit_code == 0
        if changed is not None:
            size = changed.stat().st_size
            Image.fromarray(photo(80, 80, 1)).save(changed)
            assert changed.stat().st_size == size
        assert run(*arguments).exit_code == (0 if changed is None else 1)


@pytest.mark.parametrize("line", [
    "{}", "[]", '{"method": 1, "picture": "a", "seed": 0, "values": 3}', '{"method": "a", "seed": 0, "values": {}}',
    '{"method": "a", "picture": "a", "seed": 0, "values": {}, "features": {"FID": "AAAAAA="}}',
    '{"method": "a", "picture": "a", "seed": 0, "values": {}, "features": {"FID": "AAA="}}',
])  # fmt: skip
def test_a_damaged_journal_is_one_line(sets, tmp_path, line):
    arguments = ["bicubic", *sets, "--metrics", "psnr", "-o", tmp_path / "out"]
    assert run(*arguments).exit_code == 0
    with (tmp_path / "out" / "journal.jsonl").open("a") as file:
        file.write(f"{line}\n")
    done = run(*arguments)
    assert done.exit_code == 1
    assert "is damaged" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_cannot_be_scored_is_said_and_the_rest_scored(sets, tmp_path):
    for name, side in (("hr", 80), ("lr", 20)):
        for extra in ("small", "bad"):
            Image.fromarray(photo(side, side)).save(tmp_path / name / f"{extra}.png")
    Image.fromarray(photo(20, 24)).save(tmp_path / "lr" / "small.png")
    (tmp_path / "lr" / "bad.png").write_bytes(b"no picture")
    Image.fromarray(photo(80, 80)).save(tmp_path / "hr" / "alone.png")
    (tmp_path / "theirs").mkdir()
    Image.fromarray(photo(80, 80)).save(tmp_path / "theirs" / "0.png")
    Image.fromarray(photo(80, 84)).save(tmp_path / "theirs" / "1.png")
    (tmp_path / "empty").mkdir()
    done = run("bicubic", f"theirs={tmp_path / 'theirs'}", f"empty={tmp_path / 'empty'}", *sets,
               "--metrics", "psnr,lpips-vgg", "--features", tmp_path, "-o", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("LPIPS-VGG is not available: ")
    assert "vgg16_lpips.safetensors does not exist: put vgg16's weights there" in lines[0]
    content = result(tmp_path / "out")
    failures = {(failure["method"], failure["picture"]): failure["reason"] for failure in content["failures"]}
    for key, reason in {
        ("empty", ""): "holds no pictures",
        (None, "alone"): "has no picture alone, the partner of",
        (None, "bad"): "not a picture",
        (None, "small"): "is not a quarter of the size",
        ("theirs", "1"): "is 84x80, not four times the size of the lr picture (80x80)",
    }.items():
        assert reason in failures.pop(key)
        assert any(reason in line for line in lines)
    assert failures == {}
    assert [(s["method"], s["picture"]) for s in content["scores"]] == [
        ("bicubic", "0"), ("bicubic", "1"), ("theirs", "0"),
    ]  # fmt: skip
    assert "LPIPS-VGG" not in content["scores"][0]["values"]
    assert "| not available |" in done.stdout
    assert run("bicubic", "--hr", tmp_path / "empty").exit_code == 1


def test_without_truth(tmp_path):
    (tmp_path / "lr" / "sub").mkdir(parents=True)
    Image.fromarray(photo(48, 60)).convert("L").save(tmp_path / "lr" / "grey.png")
    Image.fromarray(photo(50, 60, 1)).convert("RGBA").save(tmp_path / "lr" / "sub" / "clear.png")
    Image.fromarray(photo(20, 60)).save(tmp_path / "lr" / "tiny.png")
    done = run("bicubic", "--lr", tmp_path / "lr", "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout.startswith("| method | NIQE |\n")
    assert "3 lr pictures (lr)" in done.stdout
    assert "NIQE not defined for 1 of 3 outputs" in done.stdout
    assert [score["picture"] for score in result(tmp_path / "out")["scores"]] == ["grey", "sub/clear", "tiny"]
    assert result(tmp_path / "out")["scores"][2]["values"] == {}
    done = run("bicubic", "--lr", tmp_path / "lr", "--metrics", "psnr")
    assert done.exit_code == 2
    assert "PSNR compares with true pictures" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["bicubic"], "give --hr, --lr or both"),
        (["bicubic", "--hr", "x", "--save"], "--save needs --output"),
        (["bicubic", "--hr", "x", "--part", "0.5", "0.2"], "is not a part"),
        (["bicubic", "--hr", "x", "--crop", "42"], "multiple of 4"),
        (["bicubic", "--hr", "x", "--metrics", "psnr,beauty"], "no metric 'beauty'; choose of PSNR"),
        (["no-model", "--hr", str(EXAMPLES)], "no model 'no-model'"),
    ],
)
def test_wrong_options(arguments, reason):
    done = run(*arguments)
    assert done.exit_code == 2
    assert reason in done.stderr


# -- the registry --


class _Means(torch.nn.Module):
    """In the place of VGG16."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(image, 10)]


def test_every_metric_declares_itself():
    for metric in METRICS.values():
        low, high = metric.range
        assert high is None or low < high
    assert choose(["all"], truth=True) == list(METRICS.values())
    assert {metric.needs for metric in choose(["all"], truth=False)} == {"none"}
    assert [metric.name for metric in choose(["niqe", "PSNR"], truth=True)] == ["PSNR", "NIQE"]


def test_what_is_missing_says_what_it_needs_and_is_not_replaced(tmp_path, monkeypatch):
    for package in ("pyiqa", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / INCEPTION).write_bytes(b"weights")
    scores = load_scores(list(METRICS.values()), Setting(features=tmp_path))
    patterns = {f"Pattern-{period}" for period in (2, 4, 8, 16)}
    assert (
        set(scores.loaded)
        == {"PSNR", "SSIM", "MS-SSIM", "NIQE", "Blocks", "Grain", "Specks", "Ringing", "Tint"} | patterns
    )
    for name, remedy in {
        "LPIPS-Alex": "alexnet_lpips.safetensors does not exist: put",
        "LPIPS-VGG": "vgg16_lpips.safetensors does not exist: put",
        "DISTS": "vgg16_lpips.safetensors does not exist: put",
        "FD-VGG16": "vgg16_lpips.safetensors does not exist: put",
        "CLIPIQA": "pip install pyiqa); it and its weights are for non-commercial use",
        "MUSIQ": "pip install pyiqa); it and its weights are for non-commercial use",
        "FID": "pip install torch-fidelity",
    }.items():
        assert remedy in scores.missing.pop(name)
    assert scores.missing == {}


def test_packages_that_are_there_are_used(tmp_path, monkeypatch):
    """Their interfaces stand in for them: they need torchvision."""

    class Inception(torch.nn.Module):
        def __init__(self, name: str, features: list[str], weights: io.BytesIO) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(3))
            assert features == ["2048"]
            self.load_state_dict(torch.load(weights, weights_only=False))

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            assert image.dtype == torch.uint8
            return (image.float().mean(dim=(2, 3)) + self.bias,)

    module = "torch_fidelity.feature_extractor_inceptionv3"
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(FeatureExtractorInceptionV3=Inception))
    made = types.SimpleNamespace(create_metric=lambda name, device: lambda image: image.mean(dim=(1, 2, 3))[:, None])
    monkeypatch.setitem(sys.modules, "pyiqa", made)
    torch.save({"bias": torch.ones(3)}, tmp_path / INCEPTION)
    scores = load_scores([METRICS[name] for name in ("CLIPIQA", "MUSIQ", "FID")], Setting(features=tmp_path))
    assert scores.missing == {}
    image = torch.rand(2, 3, 8, 8)
    assert torch.allclose(scores.loaded["MUSIQ"](image), image.mean(dim=(1, 2, 3)))
    expected = (image * 255).round().mean(dim=(2, 3)) + 1
    assert torch.allclose(scores.loaded["FID"](image), expected)
    torch.save({"bias": print}, tmp_path / INCEPTION)
    assert "could run code" in load_scores([METRICS["FID"]], Setting(features=tmp_path)).missing["FID"]


def test_a_distance_of_sets_compares_with_the_truth_seed_by_seed(sets, student, tmp_path, monkeypatch):
    monkeypatch.setattr("tddsr.metrics.frechet.load_features", lambda *_, **__: _Means())
    save_model(student, tmp_path / "m.safetensors")
    hr = f"truth={tmp_path / 'hr'}"
    arguments = [tmp_path / "m.safetensors", hr, *sets, "--metrics", "fd-vgg16,psnr", "--seeds", 2, "--save"]
    assert run(*arguments, "-o", tmp_path / "out").exit_code == 0
    content = result(tmp_path / "out")
    assert [(row["method"], row["seed"]) for row in content["sets"]] == [("m", 0), ("m", 1), ("truth", 0)]
    assert content["sets"][-1]["values"]["FD-VGG16"] == pytest.approx(0, abs=1e-9)
    means = {}
    for name in ("hr", "m"):
        pictures = [np.asarray(Image.open(tmp_path / "out" / "pictures" / name / f"{i}.png")) for i in range(2)]
        means[name] = torch.stack([torch.from_numpy(p / 127.5 - 1).mean(dim=(0, 1)) for p in pictures])
    expected = frechet_distance(means["m"], means["hr"])
    assert content["sets"][0]["values"]["FD-VGG16"] == pytest.approx(expected, rel=1e-4)
