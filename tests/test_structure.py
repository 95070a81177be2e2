import ast
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
GROUND = SRC / "tddsr"

ROOMS = (
    "errors",
    "files",
    "downloads",
    "rng",
    "device",
    "tiling",
    "pictures",
    "networks",
    "diffusion",
    "model",
    "weights",
    "engines",
    "enlarge",
    "upscaler",
    "__init__",
    "bulk",
    "degradation",
    "metrics",
    "training",
    "evaluation",
    "report",
    "cli",
    "__main__",
)
"""Modules and packages of the ground floor, each importing only from those before it."""

MOST_DOORS = 12
MOST_LINES = 400


def find_modules() -> dict[str, Path]:
    modules = {}
    for path in GROUND.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


MODULES = find_modules()


def for_types_only(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(source: str, package: str) -> set[str]:
    """The modules of tddsr that ``source`` imports anywhere, also in functions, but not for its types alone."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and for_types_only(node):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                found.add(f"{module}.{alias.name}" if f"{module}.{alias.name}" in MODULES else module)
        waiting += ast.iter_child_nodes(node)
    return found & MODULES.keys()


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return imports(path.read_text(encoding="utf-8"), package)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_imports_are_found_wherever_they_stand():
    source = (
        "from __future__ import annotations\n"
        "import tddsr.rng, torch\n"
        "from tddsr import files\n"
        "from .file import save_model\n"
        "if TYPE_CHECKING:\n    from tddsr.upscaler import Upscaler\n"
        "else:\n    import tddsr.tiling\n"
        "def late():\n    from tddsr.model import Model\n"
    )
    expected = {"tddsr.rng", "tddsr.files", "tddsr.weights.file", "tddsr.tiling", "tddsr.model"}
    assert imports(source, "tddsr.weights") == expected


def test_every_room_has_its_place():
    assert {room(module) for module in MODULES} == set(ROOMS)


def test_no_module_imports_itself_by_a_detour():
    TopologicalSorter({module: imports_of(module) for module in MODULES}).prepare()  # CycleError names the circle


def test_no_room_imports_from_a_later_one():
    place = {name: index for index, name in enumerate(ROOMS)}
    backward = [
        f"{module} -> {other}"
        for module in sorted(MODULES)
        for other in sorted(imports_of(module))
        if place[room(other)] > place[room(module)]
    ]
    assert not backward


def test_the_ground_floor_has_few_doors():
    assert len(list(GROUND.glob("*.py"))) <= MOST_DOORS


def test_a_file_holds_one_idea():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values()}
    assert not {str(path.relative_to(SRC)): n for path, n in lengths.items() if n > MOST_LINES}
