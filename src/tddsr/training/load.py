"""Finding and reading recipes: by name or path, laid over their bases, with the command line's changes last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tddsr.errors import RecipeError
from tddsr.training.recipe import Recipe

Settings = TypeVar("Settings", bound=BaseModel)

_CHECKOUT = Path(__file__).parents[3] / "recipes"
FOLDERS = {
    "package": Path(__file__).parents[1] / "recipes",
    "recipes/ablation": _CHECKOUT / "ablation",
    "recipes/paper": _CHECKOUT / "paper",
}
"""Where recipes are found by name; the last two are there in a checkout alone."""


def recipe_files() -> dict[str, Path]:
    """Name -> file of the recipes that are here."""
    return {file.stem: file for folder in FOLDERS.values() for file in sorted(folder.glob("*.yaml"))}


def catalogue() -> Iterator[tuple[str, str, str]]:
    """(name, where it is from, the first sentence of its leading comment) of the recipes that are here."""
    where = {folder: name for name, folder in FOLDERS.items()}
    for name, file in recipe_files().items():
        lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
        comment = " ".join(line.lstrip("# ") for line in lines)
        yield name, where[file.parent], re.split(r"(?<=\.)\s+(?!\d)", comment)[0]  # not after the point of Eq. 6


def find_recipe(name: str, beside: Path = Path()) -> Path:
    """The file of a recipe by its path, seen from ``beside``, or its name.

    Raises:
        RecipeError: there is none.
    """
    if (beside / name).is_file():
        return beside / name
    known = recipe_files()
    if name not in known:
        raise RecipeError(f"no recipe '{name}': neither a file nor one of {', '.join(known)}")
    return known[name]


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path; ``overrides`` are ``key=value`` with dotted keys, values in YAML.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key, an impossible value, or bases in a circle.
    """
    path = find_recipe(name)
    return load_settings(Recipe, path, overrides, out=f"runs/{path.stem}")


def load_recipes(names: Sequence[str], overrides: Sequence[str] = ()) -> list[Recipe]:
    """Recipes as stages of one training: each but the first starts from the last weights of the one before.

    ``overrides`` are for all of them, ``start`` for the first.

    Raises:
        RecipeError: as of ``load_recipe``; no recipe; or several in one folder.
    """
    if not names:
        raise RecipeError("no recipe: `tddsr recipes` lists what there is")
    stages: list[Recipe] = []
    for name in names:
        changes = list(overrides)
        if stages:
            changes = [each for each in overrides if not each.startswith("start=")]
            changes.append(f"start={stages[-1].last}")
        stages.append(load_recipe(name, changes))
    if len({stage.out for stage in stages}) < len(stages):
        raise RecipeError("every stage needs a folder of its own: name each recipe once, and leave out= away")
    return stages


def load_settings(kind: type[Settings], path: Path, overrides: Sequence[str] = (), **defaults: object) -> Settings:
    """As ``load_recipe``, for any kind of typed settings; ``defaults`` are for what the file leaves open."""
    tree = {**defaults, **_read(path)}
    for override in overrides:
        _set(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" + (f" (got {e['input']!r})" if e["loc"] else "")
            for e in error.errors()
        )
        raise RecipeError(f"{path}: {problems}") from error


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tree of ``path`` over that of its base; ``above`` are the files that are laid over it."""
    if path.resolve() in above:
        raise RecipeError(f"{path}: its bases go in a circle: {' > '.join(file.stem for file in above)} > {path.stem}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no keys")
    base = tree.pop("base", None)
    return _over({} if base is None else _read(find_recipe(str(base), path.parent), (*above, path.resolve())), tree)


def _over(base: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """``tree`` laid over ``base`` as a JSON Merge Patch (RFC 7396): mapping by mapping; null takes a key away."""
    merged = dict(base)
    for key, value in tree.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = base.get(key)
            merged[key] = _over(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"'{override}' is not key=value")
    *parents, leaf = key.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"'{override}': the value is not YAML") from None
    plain = isinstance(read, str) and not value.lstrip().startswith(("'", '"'))
    tree[leaf] = value if plain else read  # of "photos #2", YAML would take the end for a comment
