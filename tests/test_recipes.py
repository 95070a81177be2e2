"""Recipes: found by name, laid over their bases, and what is written about them."""

import json
from pathlib import Path

import pytest

from tddsr.errors import RecipeError
from tddsr.training.load import catalogue, load_recipe, recipe_files
from tddsr.training.recipe import OptimConfig, Recipe
from tests.test_cli import call

DOCS = Path(__file__).parents[1] / "docs"


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_recipe_is_laid_over_its_bases_and_the_command_line_over_all(tmp_path):
    write(tmp_path / "deep", first="base: compact-teacher\nseed: 3\ndata: {patch: 64, batch: 4}\n")
    write(tmp_path, second="base: deep/first.yaml\nseed: 4\ndata: {batch: 2, workers: 1}\noptim: null\n")
    found, plain = load_recipe(str(tmp_path / "second.yaml"), ["data.workers=2"]), load_recipe("compact-teacher")
    assert plain.optim != OptimConfig()  # null brings the default back
    expected = plain.model_dump() | {
        "seed": 4, "out": Path("runs/second"), "optim": {},
        "data": {**plain.data.model_dump(), "patch": 64, "batch": 2, "workers": 2},
    }  # fmt: skip
    assert found == Recipe.model_validate(expected)


def test_a_circle_of_bases_is_said(tmp_path, monkeypatch):
    write(tmp_path / "deep", b="base: ../a.yaml\n")
    write(tmp_path, a="base: deep/b.yaml\n", itself="base: itself.yaml\n")
    monkeypatch.chdir(tmp_path)
    for name in ("a", "itself"):
        with pytest.raises(RecipeError, match="in a circle"):
            load_recipe(f"{name}.yaml")


@pytest.mark.parametrize(("text", "complaint"), [
    ("base: no-such\n", "no-such"), ("base: compact-teacher\ndata: {bach: 1}\n", "data.bach"), ("[]", "holds no keys"),
    ("a: [", "a.yaml"),
])  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path, text, complaint):
    write(tmp_path, a=text)
    with pytest.raises(RecipeError, match=complaint) as error:
        load_recipe(str(tmp_path / "a.yaml"))
    assert "\n" not in str(error.value)


def test_what_the_wheel_holds_needs_nothing_from_the_checkout():
    packaged = {name: file for name, file in recipe_files().items() if "src" in file.parts}
    assert set(packaged) == {
        "compact-both", "compact-both-on", "compact-follow", "compact-gpu", "compact-sharpen", "compact-texture",
        "compact-texture-on",
    }  # fmt: skip
    for recipe in map(load_recipe, packaged):
        source = recipe.teacher or recipe.start
        assert source is not None
        assert source.name == "realesrgan-x4plus"


@pytest.mark.parametrize(("override", "complaint"), [
    ("data.bach=4", "data.bach"), ("steps=0", "steps"), ("nonsense", "key=value"), ("model=null", "model"),
    ("loss={}", "loss.truth"), ("model.role=student", "role"), ("data.batch=[1", "not YAML"),
    ("model.schedule.kappa=0", "kappa"), ("task=distill", "teacher"), ("optim.rate=fast", "optim.rate"),
    ("optim.rate=.inf", "optim.rate"),
])  # fmt: skip
def test_wrong_overrides_name_the_key(override, complaint):
    with pytest.raises(RecipeError, match=complaint):
        load_recipe("compact-teacher", [override])


@pytest.mark.parametrize(("value", "meant"), [
    ("photos #2", "photos #2"), ("'quoted: a #'", "quoted: a #"), ("./2024", "2024"), ("a b", "a b"),
])  # fmt: skip
def test_a_folder_may_have_any_name(value, meant):
    assert load_recipe("compact-teacher", [f"data.train={value}"]).data.train.name == meant


def test_unknown_recipes_say_which_are_known():
    with pytest.raises(RecipeError, match="compact-teacher"):
        load_recipe("compact-techer")


def test_recipes_are_listed_in_a_line_each():
    assert [name for name, _, _ in catalogue()] == list(recipe_files())
    lines = call("recipes").stdout.splitlines()
    assert len(lines) == len(recipe_files())
    for line, (name, where, sentence) in zip(lines, catalogue(), strict=True):
        assert line.split()[:2] == [name, where]
        assert line.endswith(sentence)
        assert 20 < len(sentence) < 160


@pytest.mark.parametrize(("option", "file"), [("--keys", "recipes.md"), ("--schema", "recipe.schema.json")])
def test_the_kept_reference_is_that_of_the_types(option, file):
    """`tddsr recipes OPTION > docs/FILE` writes it anew."""
    assert call("recipes", option).stdout == (DOCS / file).read_text(encoding="utf-8")


def test_every_row_of_the_reference_has_as_many_cells_as_its_table():
    rows = [line for line in (DOCS / "recipes.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}


def test_the_schema_has_every_key_with_a_description():
    whole = json.loads((DOCS / "recipe.schema.json").read_text(encoding="utf-8"))
    assert {"base", *Recipe.model_fields} == set(whole["properties"])
    for section in (whole, *whole["$defs"].values()):
        for key, value in section["properties"].items():
            assert any("description" in part for part in (value, *value.get("anyOf", ()))), key
