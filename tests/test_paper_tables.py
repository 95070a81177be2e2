"""The paper's tables: their figures, and what is measured beside them."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tddsr.errors import RecipeError
from tddsr.training.load import recipe_files
from tests.conftest import photo

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
paper_tables: Any = import_module("paper_tables")


def test_the_papers_figures():
    names = [f"table{number}" for number in range(1, 7)]
    assert sorted(file.stem for file in paper_tables.TABLES.glob("*.yaml")) == ["faces", "pairs", *names]
    tables = {name: paper_tables.load_table(name) for name in names}

    def figures(table: int, row: str, data: str) -> list[str]:
        return list(tables[f"table{table}"].rows[row].quoted[data].values())

    assert figures(1, "SinSR-1", "RealSet65") == ["0.7146", "62.2579"]
    assert figures(1, "Real-ESRGAN", "RealSR") == ["0.4900", "59.6923"]
    assert figures(2, "ResShift-15", "DIV2K") == ["27.2753", "0.7626", "0.2005", "0.6729", "65.5703"]
    assert figures(3, "Ours-1", "Faces") == ["31.16", "0.821", "0.937", "3.148"]
    assert figures(4, "CAGFace", "Faces") == ["27.42", "0.816", "0.958", "74.43"]
    assert figures(5, "Distill + LR", "RealSet65") == ["0.7076", "63.3870"]
    assert figures(6, "Ours v2", "DIV2K") == ["26.8058", "0.7413", "0.2023", "0.6971", "66.5178"]
    counts = [sum(len(f) for row in t.rows.values() for f in row.quoted.values()) for t in tables.values()]
    assert counts == [5 * 4, 5 * 5, 7 * 4, 7 * 4, 4 * 4, 2 * 5]
    assert tables["table1"].rows["Ours-1"].quoted == tables["table5"].rows["Distill + HR + LR"].quoted
    assert tables["table2"].rows["Ours-1"].quoted == tables["table6"].rows["Ours v1"].quoted


def test_the_recipes_train_what_they_report():
    for name in ("table1", "table5", "table6"):
        for row in paper_tables.load_table(name).rows.values():
            if isinstance(row.method, str) and row.method.startswith("runs/"):
                assert row.method.split("/")[1] in recipe_files()


@pytest.mark.parametrize("override", [
    "limt=1", "data.RealSR.lr=", "rows.a/b={method: bicubic}", "source=''",
    "rows.compact.quoted={Other: {MUSIQ: '1'}}", "rows.compact.quoted={RealSR: {A: '1'}}",
    "rows.compact.quoted={RealSR: {MUSIQ: about}}",
])  # fmt: skip
def test_a_wrong_table_is_one_line(override):
    with pytest.raises(RecipeError) as error:
        paper_tables.load_table("table1", [override])
    assert "\n" not in str(error.value)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Bicubic, nearest, and rows that have to fail, on three photos of which NIQE is just defined."""
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        Image.fromarray(photo(96, 192, seed)).save(tmp_path / "photos" / f"{seed}.png")
    figures = {"Photos": {"PSNR": "30.00"}}
    content = {
        "title": "Three photos", "source": "nowhere", "out": str(tmp_path / "out"), "seeds": 1, "device": "cpu",
        "columns": {"PSNR": {"better": "higher"}, "NIQE": {"better": "lower"}},
        "data": {"Photos": {"hr": str(tmp_path / "photos")}, "Elsewhere": {"lr": str(tmp_path / "none")}},
        "rows": {
            "bicubic": {"method": "bicubic"},
            "wrong": {"method": "no-such-model", "quoted": figures},
            "theirs": {"method": "finished/theirs", "quoted": figures},
            "paper": {"method": "resshift-v1", "quoted": figures},
            "nearest": {"method": {"Photos": "nearest"}},
        },
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "mine.yaml"


@pytest.fixture
def scored(monkeypatch) -> list[str]:
    """Names of the rows that are scored, not read; scoring itself is the real one."""
    names: list[str] = []
    evaluate = paper_tables.evaluate

    def noting(methods, *rest, **options):
        names.extend(methods)
        return evaluate(methods, *rest, **options)

    monkeypatch.setattr(paper_tables, "evaluate", noting)
    return names


def test_rows_are_measured_once_and_anew_where_anything_changed(table, scored, tmp_path, monkeypatch):
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "cache"))

    def measured(*overrides: str) -> dict[str, Any]:
        scored.clear()
        photos, elsewhere = paper_tables.measure(paper_tables.load_table(str(table), overrides), tmp_path / "out")
        assert not elsewhere.measured
        assert all("none" in row.reason for row in elsewhere.absent)
        reasons = {row.label: row.reason for row in photos.quoted}
        assert "no-such-model" in reasons["wrong"]
        assert "rows.theirs.method" in reasons["theirs"]
        assert "not on this machine" in reasons["paper"]
        return {row.label: row.source for row in photos.measured}

    def psnr(sources: dict[str, Any]) -> dict[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = sources["bicubic"].result.by_picture("bicubic", "PSNR")
        return found

    first = measured()
    assert scored == list(first) == ["bicubic", "nearest"]
    assert len(psnr(first)) == len(first["nearest"].result.by_picture("nearest", "NIQE")) == 3
    assert measured() == first
    assert not scored

    assert len(psnr(measured("limit=2"))) == 2
    assert scored == ["bicubic", "nearest"]
    Image.fromarray(photo(96, 192, 7)).save(tmp_path / "photos" / "2.png")
    other = measured()
    assert scored == ["bicubic", "nearest"]
    assert psnr(other)["2"] != psnr(first)["2"]
    assert psnr(other)["1"] == psnr(first)["1"]

    # A result that is cut off, lacks a score, or has a picture that failed.
    file = other["nearest"].folder / "result.json"
    whole = json.loads(file.read_text())
    failure = {"method": "nearest", "picture": "0", "reason": "out of memory"}
    for changed in (None, {"scores": whole["scores"][:-1]}, {"failures": [failure]}):
        file.write_text("{" if changed is None else json.dumps({**whole, **changed}))
        assert measured() == other
        assert scored == ["nearest"]


def test_a_metric_that_was_missing_is_measured_once_it_can_be_had(table, scored, tmp_path, monkeypatch):
    def columns() -> list[str | None]:
        scored.clear()
        overrides = [
            "columns.CLIPIQA={better: higher}",
            *(f"rows.{row}.method=" for row in ("wrong", "theirs", "paper")),
        ]
        photos, _ = paper_tables.measure(paper_tables.load_table(str(table), overrides), tmp_path / "out")
        return [row.source.result.metrics["CLIPIQA"].missing for row in photos.measured]

    monkeypatch.setitem(sys.modules, "pyiqa", None)
    assert all("pyiqa" in str(missing) for missing in columns())
    assert all("pyiqa" in str(missing) for missing in columns())
    assert not scored
    metrics = import_module("tddsr.metrics.table").METRICS
    monkeypatch.setitem(
        metrics, "CLIPIQA", type(metrics["NIQE"])("CLIPIQA", "higher", (0, 1), "none", metrics["NIQE"].load)
    )
    assert columns() == [None, None]
    assert scored == ["bicubic", "nearest"]


def test_the_command_writes_the_page(table, scored, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["paper_tables.py", str(table), "limit=1", "-o", str(tmp_path / "page"), "seeds=2"]
    )
    paper_tables.main()
    text = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    assert "theirs (quoted)" in text
    assert "no-such-model" in text
    monkeypatch.setattr(sys, "argv", ["paper_tables.py", "no-such-table"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        paper_tables.main()
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
