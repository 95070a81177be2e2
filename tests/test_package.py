"""The files that are published: what is in them, and that they work away from the checkout."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from PIL import Image

import tddsr

ROOT = Path(__file__).parents[1]

CARRIED = (
    "py.typed",
    "weights/compact.safetensors",
    "weights/compact-faithful.safetensors",
    "weights/compact-small.safetensors",
    "weights/compact.onnx",
    "weights/compact-small.onnx",
    "weights/MODEL_CARD.md",
    "weights/ATTRIBUTION.md",
    "weights/REALESRGAN_LICENSE",
    "metrics/lpips_heads.safetensors",
    "metrics/niqe_pristine.safetensors",
    "metrics/dists_weights.safetensors",
    "metrics/LPIPS_LICENSE",
    "metrics/NIQE_LICENSE",
    "metrics/DISTS_LICENSE",
    "report/templates/base.html",
    "report/templates/page.css",
    "recipes/compact-follow",
    "recipes/compact-sharpen",
    "recipes/compact-texture",
    "recipes/compact-gpu",
    "recipes/compact-both",
)
"""What the package opens at run time, below tddsr/; recipes without their suffix."""


def run(*command: object, cwd: Path) -> str:
    """Run with nothing of this process's import path; its output, and its errors where it fails."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV", "COVERAGE"))}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is made from it, as an installer would make it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("tddsr-*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (path,) = built.glob("tddsr-*.tar.gz")
    return path


@pytest.fixture(scope="module")
def in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def in_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_the_wheel_holds_every_module(in_wheel):
    source = ROOT / "src"
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    assert modules == {name for name in in_wheel if name.endswith(".py")}


@pytest.mark.parametrize("name", CARRIED)
def test_the_wheel_carries_what_the_package_opens(in_wheel, name):
    assert any(path in (f"tddsr/{name}", f"tddsr/{name}.yaml") for path in map(_flat, in_wheel))


def _flat(path: str) -> str:
    """A recipe's path without folders between, which may be regrouped."""
    parts = path.split("/")
    return "/".join([*parts[:2], parts[-1]]) if parts[:2] == ["tddsr", "recipes"] else path


def test_the_wheel_holds_nothing_else(in_wheel):
    places = {name.split("/")[0] for name in in_wheel}
    assert places == {"tddsr", f"tddsr-{tddsr.__version__}.dist-info"}
    suffixes = {Path(name).suffix for name in in_wheel if name.startswith("tddsr/")}
    assert suffixes <= {".py", ".typed", ".safetensors", ".onnx", ".md", ".html", ".css", ".js", ".yaml", ""}
    assert {Path(name).name for name in in_wheel if not Path(name).suffix} <= {
        "METADATA", "RECORD", "WHEEL", "LICENSE", "LPIPS_LICENSE", "NIQE_LICENSE", "DISTS_LICENSE",
        "REALESRGAN_LICENSE",
    }  # fmt: skip


def test_the_wheel_says_its_licences_and_its_pythons(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = f"tddsr-{tddsr.__version__}.dist-info"
        metadata = message_from_bytes(archive.read(f"{name}/METADATA"))
        for licence in metadata.get_all("License-File", []):
            assert archive.read(f"{name}/licenses/{licence}") == (ROOT / licence).read_bytes()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert len(metadata.get_all("License-File", [])) == 6
    oldest = metadata["Requires-Python"].removeprefix(">=")
    named = [line.rpartition(" ")[2] for line in metadata.get_all("Classifier", []) if ":: Python :: 3." in line]
    assert oldest == min(named, key=lambda version: int(version.partition(".")[2]))


def test_the_sdist_holds_what_is_needed_to_go_on_from_it(in_sdist):
    wanted = {
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "dev",
        "constraints.txt",
        "docs/training.md",
        "examples/coffee.jpg",
    }
    assert wanted <= in_sdist
    assert {f"tests/{Path(__file__).name}", "tests/conftest.py", "src/tddsr/py.typed"} <= in_sdist


def test_the_archives_hold_no_leftovers(in_wheel, in_sdist):
    names = in_wheel | in_sdist
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".orig", "_x4.jpg"))]
    hidden = {name for name in names if any(part.startswith(".") for part in name.split("/"))}
    assert hidden <= {".gitignore"}  # hatchling's doing


@pytest.mark.parametrize("name", ["wheel", "sdist"])
def test_the_archives_stay_small(request, name):
    assert request.getfixturevalue(name).stat().st_size < 35e6


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tddsr.__version__


def test_the_installed_wheel_upscales_elsewhere(wheel, tmp_path):
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    bin = home / ("Scripts" if os.name == "nt" else "bin")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        bin / "python",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=tmp_path,
    )
    # The dependencies are this environment's. Its own .pth files, among them the checkout's, are not read again there.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    site.joinpath("dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))

    Image.new("RGB", (12, 10), "teal").save(tmp_path / "small.png")
    place = run(bin / "python", "-c", "import tddsr; print(tddsr.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(home)
    run(bin / "python", "-m", "tddsr", "upscale", "small.png", cwd=tmp_path)
    with Image.open(tmp_path / "small_x4.png") as large:
        assert large.size == (48, 40)
        assert large.getpixel((24, 20)) == pytest.approx((0, 128, 128), abs=8)
