import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import tddsr
from tddsr import __version__, enlarge
from tddsr.cli import app, main
from tddsr.errors import ImageError, UsageError
from tddsr.pictures.folders import find_photos
from tddsr.tiling import plan
from tddsr.training.load import recipe_files
from tddsr.weights.file import save_model
from tddsr.weights.names import load_model, read_notes
from tests.conftest import photo, small_model, small_rrdb
from tests.derived import small_paper_model
from tests.test_picture_files import png_with_size, truncated_jpeg


@pytest.fixture
def model(student, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(student, path)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def picture(path: Path, height: int = 20, width: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(height, width)).save(path)
    return path


def test_a_picture_is_written_beside_its_source_and_said_in_one_line(tmp_path, model):
    source = picture(tmp_path / "photo.jpg")
    result = call("upscale", source, "--model", model)
    assert result.exit_code == 0
    assert result.stdout == f"{source} -> {tmp_path / 'photo_x4.jpg'}\n"
    assert Image.open(tmp_path / "photo_x4.jpg").size == (96, 80)


def test_what_exists_is_skipped_unless_told_otherwise(tmp_path, model):
    source = picture(tmp_path / "a.png")
    call("upscale", source, "--model", model)
    first = (tmp_path / "a_x4.png").stat().st_mtime_ns
    skipped = call("upscale", source, "--model", model)
    assert skipped.exit_code == 0
    assert "skipped" in skipped.stdout
    assert (tmp_path / "a_x4.png").stat().st_mtime_ns == first
    call("upscale", source, "--model", model, "--overwrite")
    assert (tmp_path / "a_x4.png").stat().st_mtime_ns > first


def test_a_folder_is_mirrored(tmp_path, model):
    names = ["a.png", "b/c.jpg", "b/d/e.webp", "f.bmp"]
    for name in names:
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    result = call("upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--scale", "2")
    assert result.exit_code == 0
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "b/c.jpg", "b/d/e.webp", "f.png"]
    assert Image.open(tmp_path / "out" / "a.png").size == (48, 40)


def test_an_output_folder_inside_the_input_is_not_read_again(tmp_path, model):
    picture(tmp_path / "in" / "a.png")
    for _ in range(2):
        result = call("upscale", tmp_path / "in", "-o", tmp_path / "in" / "large", "--model", model)
        assert result.exit_code == 0
    assert [p.name for p in (tmp_path / "in" / "large").rglob("*")] == ["a.png"]


def test_a_folder_without_output_gets_a_folder_beside_it(tmp_path, model):
    picture(tmp_path / "in" / "a.png")
    assert call("upscale", tmp_path / "in", "--model", model).exit_code == 0
    assert (tmp_path / "in_x4" / "a.png").exists()


def test_the_folder_one_stands_in_may_have_any_name(tmp_path, model, monkeypatch):
    folder = tmp_path / "summer.2024"
    picture(folder / "a.b.png")
    monkeypatch.chdir(folder)
    assert call("upscale", ".", "--model", model).exit_code == 0
    assert call("upscale", folder, "--model", model).exit_code == 0
    assert (tmp_path / "summer.2024_x4" / "a.b.png").exists()


def test_json_lines(tmp_path, model):
    source = picture(tmp_path / "a.png")
    result = call("upscale", source, tmp_path / "none.png", "--model", model, "--json")
    assert result.exit_code == 1
    done, failed, summary = map(json.loads, result.stdout.splitlines())
    assert done["status"] == "done"
    assert done["output"] == str(tmp_path / "a_x4.png")
    assert done["seconds"] > 0
    assert failed["status"] == "failed"
    assert "none.png" in failed["message"]
    assert (summary["done"], summary["skipped"], summary["failed"]) == (1, 0, 1)
    assert summary["seconds"] >= done["seconds"] > 0


def bad_files(folder: Path) -> list[Path]:
    contents = {
        "text.png": b"just text",
        "empty.jpg": b"",
        "cut.jpg": truncated_jpeg(),
        "none.png": png_with_size(0, 10),
        "huge.png": png_with_size(100_000, 100_000),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / "missing.png", *(folder / name for name in contents)]


def test_a_bad_file_is_one_line_and_the_others_go_on(tmp_path, model):
    bad = bad_files(tmp_path)
    good = [picture(tmp_path / "first.png"), picture(tmp_path / "last.png")]
    result = call("upscale", good[0], *bad, good[1], "--model", model)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    *errors, summary = result.stderr.splitlines()
    assert len(errors) == len(bad)
    assert summary.startswith("2 done, 0 skipped, 6 failed in ")
    for path, line in zip(bad, errors, strict=True):
        assert str(path) in line
    assert (tmp_path / "first_x4.png").exists()
    assert (tmp_path / "last_x4.png").exists()
    assert not (tmp_path / "text_x4.png").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, model):
    source = picture(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    result = call("upscale", source, "-o", tmp_path / "file" / "a.png", "--model", model)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "cannot be written" in result.stderr


def test_an_empty_folder_is_one_line(tmp_path, model):
    (tmp_path / "empty").mkdir()
    result = call("upscale", tmp_path / "empty", "--model", model)
    assert result.exit_code == 1
    assert "no pictures" in result.stderr


@pytest.mark.parametrize("output", [".", "in"])
def test_an_original_is_never_overwritten(tmp_path, model, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    source = picture(tmp_path / "in" / "a.png")
    before = source.read_bytes()
    result = call("upscale", "in", "-o", output, "--model", model, "--overwrite")
    assert source.read_bytes() == before
    assert result.exit_code == (1 if output == "in" else 0)
    assert (tmp_path / "a.png").exists() == (output == ".")
    result = call("upscale", source, "-o", source, "--model", model, "--overwrite")
    assert (result.exit_code, source.read_bytes()) == (1, before)


def test_pairs_may_be_written_into_the_folder_of_their_originals(tmp_path):
    picture(tmp_path / "a.png")
    for _ in range(2):
        assert call("degrade", tmp_path, "-o", tmp_path).exit_code == 0
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")) == [
        "a.png",
        "hr/a.png",
        "lr/a.png",
    ]


def test_a_pair_replaces_nothing_unless_told(tmp_path):
    lr = picture(tmp_path / "set" / "lr" / "a.png")
    before = lr.read_bytes()
    result = call("degrade", lr, "-o", tmp_path / "set", "--overwrite")  # its own source
    assert (result.exit_code, lr.read_bytes()) == (1, before)
    source = picture(tmp_path / "sharp" / "a.png", 32, 32)
    result = call("degrade", source, "-o", tmp_path / "set")
    assert (result.exit_code, lr.read_bytes()) == (1, before)
    assert "--overwrite" in result.stderr
    assert not (tmp_path / "set" / "hr").exists()
    assert call("degrade", source, "-o", tmp_path / "set", "--overwrite").exit_code == 0
    assert Image.open(lr).size == (8, 8)


def test_no_result_replaces_another_of_the_inputs(tmp_path, model):
    a, b = (picture(tmp_path / folder / "x.png") for folder in "ab")
    before = b.read_bytes()
    result = call("upscale", a, b, "-o", tmp_path / "b", "--model", model, "--overwrite")
    assert (result.exit_code, b.read_bytes()) == (1, before)
    assert len(result.stderr.splitlines()) == 3
    # Without --overwrite what exists is skipped, as ever: `*.png` again and again.
    made = picture(tmp_path / "a" / "x_x4.png")
    result = call("upscale", a, made, "--model", model)
    assert result.exit_code == 0
    assert "skipped" in result.stdout


def test_several_pictures_are_not_written_to_one_file(tmp_path, model):
    a, b = (picture(tmp_path / name) for name in ("a.png", "b.png"))
    for inputs in ([a, b], [tmp_path]):
        assert call("upscale", *inputs, "-o", tmp_path / "both.png", "--model", model).exit_code == 2
    assert not (tmp_path / "both.png").exists()


def test_results_beside_their_pictures_are_left_alone(tmp_path, model):
    first, second = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    assert call("upscale", first, "--model", model).exit_code == 0
    large = tmp_path / "a_x4.png"
    again = call("upscale", first, large, second, "--model", model, "--overwrite")
    assert again.exit_code == 0
    assert f"{large}: left alone" in again.stdout
    assert not (tmp_path / "a_x4_x4.png").exists()
    folder = call("upscale", tmp_path, "-o", tmp_path / "out", "--model", model)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert f"{large} and 1 more: left alone" in folder.stdout
    assert call("upscale", large, "--model", model, "--scale", 1).exit_code == 0
    assert (tmp_path / "a_x4_x1.png").exists()


def test_an_output_with_a_slash_at_its_end_is_a_folder(tmp_path, model):
    picture(tmp_path / "a.png")
    for name in ("Vol. 2", "b.png"):
        assert call("upscale", tmp_path / "a.png", "-o", f"{tmp_path / name}/", "--model", model).exit_code == 0
        assert (tmp_path / name / "a.png").exists()


def test_what_a_folder_passes_over_is_said(tmp_path, model):
    picture(tmp_path / "in" / "a.png")
    for name in ("b.psd", "c.psd"):
        (tmp_path / "in" / name).write_text("")
    result = call("upscale", tmp_path / "in", "--model", model)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].endswith("passed over 2 .psd")


def test_what_was_left_out_is_said_in_the_same_line(tmp_path, model):
    picture(tmp_path / "a.png")
    more = {"save_all": True, "append_images": [Image.new("RGB", (24, 20))]}
    Image.open(tmp_path / "a.png").save(tmp_path / "b.jpg", "TIFF", **more)
    result = call("upscale", tmp_path / "a.png", tmp_path / "b.jpg", "--model", model)
    assert result.exit_code == 0
    plain, noted = result.stdout.splitlines()
    assert plain.endswith("a_x4.png")
    assert "holds 2 pictures" in noted


def test_a_slip_of_the_hand_replaces_no_picture(tmp_path, model):
    a, b = (picture(tmp_path / name) for name in ("a.png", "b.png"))
    before = b.read_bytes()
    for command in (["compare", a, b, "-o", b], ["convert", model, "-o", b]):
        result = call(*command)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert b.read_bytes() == before


@pytest.mark.parametrize("command", ["upscale", "degrade"])
def test_a_name_that_is_no_text_is_used_and_printed(tmp_path, model, monkeypatch, command):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    try:
        picture(tmp_path / "a.png").replace(odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr("sys.stdout", out)
    options = ["--model", str(model)] if command == "upscale" else []
    monkeypatch.setattr("sys.argv", ["tddsr", command, str(tmp_path), "-o", str(tmp_path / "o"), *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    out.seek(0)
    assert "\\udce9" in out.read()
    assert len(find_photos(tmp_path / "o")) == (1 if command == "upscale" else 2)
    halves = [*find_photos(tmp_path, (0, 0.5)), *find_photos(tmp_path, (0.5, 1))]
    assert sorted(halves) == find_photos(tmp_path)


def test_a_folder_that_may_not_be_looked_into_is_one_line(tmp_path, model, monkeypatch):
    good, closed = picture(tmp_path / "a.png"), tmp_path / "closed" / "b.png"
    stat = Path.stat

    def refused(path, **options):
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    result = call("upscale", closed, good, "--model", model)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[:-1] == [f"{closed}: Permission denied"]
    assert (tmp_path / "a_x4.png").exists()


def test_what_may_not_be_read_keeps_no_other_from_being_done(tmp_path, model, monkeypatch):
    closed, other = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    may, read = os.access, Image.open
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK and may(path, mode))

    def refuse(path, *arguments):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments)

    monkeypatch.setattr(Image, "open", refuse)
    result = call("upscale", closed, other, "--model", model)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == f"{closed}: may not be read (permission denied)"
    assert (tmp_path / "b_x4.png").exists()


def test_a_folder_that_can_be_listed_but_not_entered_costs_only_its_own(tmp_path, model, monkeypatch):
    closed, other = picture(tmp_path / "in" / "closed" / "a.png"), picture(tmp_path / "in" / "b.png")
    is_file = Path.is_file

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    assert find_photos(tmp_path / "in") == [other, closed]


def test_a_name_that_is_too_long_is_one_line(tmp_path, model):
    long, good = picture(tmp_path / f"{'n' * 251}.png"), picture(tmp_path / "a.png")
    result = call("upscale", long, good, "--model", model)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert (tmp_path / "a_x4.png").exists()


def test_pictures_with_one_stem_have_each_its_own_result(tmp_path, model):
    pictures = [picture(tmp_path / "in" / name) for name in ("a.bmp", "a.gif", "a.png", "a.jpg", "b.bmp")]
    for inputs in (pictures, pictures[::-1], [tmp_path / "in"]):  # their names do not hang on the order
        assert call("upscale", *inputs, "-o", tmp_path / "out", "--model", model).exit_code == 0
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == ["a.bmp.png", "a.gif.png", "a.jpg", "a.png", "b.png"]
    for _ in range(2):  # beside them, results are known by these names, too
        inputs = sorted((tmp_path / "in").iterdir())
        assert call("upscale", *inputs, "--model", model).exit_code == 0
    results = sorted(path.name for path in (tmp_path / "in").glob("*_x4*"))
    assert results == ["a.bmp_x4.png", "a.gif_x4.png", "a_x4.jpg", "a_x4.png", "b_x4.png"]


def test_two_pictures_never_write_one_file(tmp_path, model):
    a, b = (picture(tmp_path / folder / "a.png") for folder in "ab")
    result = call("upscale", a, b, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1
    assert str(a) in result.stderr
    assert str(b) in result.stderr
    assert (tmp_path / "out" / "a.png").exists()


def test_several_pictures_are_summed_up_and_one_is_not(tmp_path, model):
    first, second, bad = picture(tmp_path / "a.png"), picture(tmp_path / "b.png"), tmp_path / "none.png"
    assert call("upscale", first, "--model", model).stderr == ""
    result = call("upscale", first, second, bad, "--model", model)
    assert result.stderr.splitlines()[-1].startswith("1 done, 1 skipped, 1 failed in ")


def piped(data: bytes, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["upscale", *map(str, arguments)], input=data)


def test_standard_input_and_output_hold_pictures_and_nothing_else(tmp_path, model):
    source = picture(tmp_path / "a.png")
    data = source.read_bytes()
    for result in (
        piped(data, "-", "--model", model),
        piped(data, "-", "-o", "-", "--model", model, "--json"),
        call("upscale", source, "-o", "-", "--model", model),
    ):
        assert result.exit_code == 0
        with Image.open(io.BytesIO(result.stdout_bytes)) as large:
            large.load()
            assert (large.format, large.size) == ("PNG", (96, 80))
        assert len(result.stderr.splitlines()) == 1
    result = piped(data, "-", "-o", tmp_path / "b.webp", "--model", model)
    assert (result.exit_code, result.stdout) == (0, f"- -> {tmp_path / 'b.webp'}\n")
    assert Image.open(tmp_path / "b.webp").size == (96, 80)
    assert "skipped" in piped(data, "-", "-o", tmp_path / "b.webp", "--model", model).stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.webp", "model.safetensors"]


def test_what_is_no_picture_leaves_standard_output_empty(tmp_path, model):
    (tmp_path / "text.png").write_text("just text")
    results = [piped(data, "-", "--model", model) for data in (b"", b"just text")]
    results += [call("upscale", tmp_path / name, "-o", "-", "--model", model) for name in ("text.png", "none.png")]
    for result in results:
        assert (result.exit_code, result.stdout_bytes) == (1, b"")
        assert len(result.stderr.splitlines()) == 1


def test_streams_are_of_one_picture(tmp_path, model):
    source = picture(tmp_path / "in" / "a.png")
    for wrong in (
        ["-", source],
        [source, source, "-o", "-"],
        [tmp_path / "in", "-o", "-"],
        ["-", "-o", f"{tmp_path}/"],
    ):
        result = piped(source.read_bytes(), *wrong, "--model", model)
        assert (result.exit_code, result.stdout_bytes, len(result.stderr.splitlines())) == (2, b"", 1)


def test_a_size_in_pixels_is_kept_and_told_in_the_name(tmp_path, model):
    source = picture(tmp_path / "a.png")
    sizes = {"a_w60.png": ["--width", 60], "a_h60.png": ["--height", 60], "a_max60.png": ["--max-side", 60]}
    for name, option in sizes.items():
        assert call("upscale", source, *option, "--model", model).exit_code == 0
        assert Image.open(tmp_path / name).size == ((72, 60) if "_h" in name else (60, 50))
    for wrong in (["--width", 60, "--height", 50], ["--scale", 4, "--max-side", 60]):
        assert call("upscale", source, *wrong, "--model", model).exit_code == 2
    far = call("upscale", source, "--width", 24 * 9, "--model", model)
    assert (far.exit_code, len(far.stderr.splitlines())) == (1, 1)
    assert str(source) in far.stderr
    assert "Error" not in far.stderr


def test_metadata_can_be_left_out(tmp_path, model):
    exif = Image.Exif()
    exif[271] = "maker"
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif)
    for options, kept in (([], 1), (["--strip-metadata"], 0)):
        assert call("upscale", tmp_path / "a.jpg", "--overwrite", "--model", model, *options).exit_code == 0
        assert (271 in Image.open(tmp_path / "a_x4.jpg").getexif()) == kept


def test_a_name_does_nothing_to_a_terminal(tmp_path, model):
    source = picture(tmp_path / "a\x1b[2J[red]\n[/b].png")
    result = call("upscale", source, "--model", model)
    assert result.exit_code == 0
    assert "\\x1b[2J[red]\\n[/b].png" in result.stdout
    assert len(result.stdout.splitlines()) == 1


def test_a_folder_inside_that_is_closed_is_said(tmp_path, model, monkeypatch):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "closed" / "b.png")
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    result = call("upscale", tmp_path / "in", "--model", model)
    assert (result.exit_code, (tmp_path / "in_x4" / "a.png").exists()) == (0, True)
    assert f"{tmp_path / 'in' / 'closed'} (Permission denied)" in result.stdout
    result = call("upscale", tmp_path / "in" / "closed", "--model", model)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "Permission denied" in result.stderr


@pytest.mark.parametrize("options", [
    ["--scale", "9"], ["--scale", "x"], ["--seed", "-1"], ["--tile", "big"], ["--tile", "0"], ["--tile", "²"],
    ["--steps", "2"], ["--device", "gpu"], ["--no-such-option"], ["--model", "no-such-model"], ["--sampler", "odd"],
    ["--width", "0"], ["--max-side", "x"], ["--largest-input", "0"], ["--largest-input", "nan"],
])  # fmt: skip
def test_a_wrong_option_is_exit_code_2(tmp_path, model, options):
    source = picture(tmp_path / "a.png")
    model_option = [] if "--model" in options else ["--model", model]
    result = call("upscale", source, *model_option, *options)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "a_x4.png").exists()


@pytest.mark.parametrize("arguments", [
    ["upscale", "a.png", "--scale", "9"], ["upscale"], ["upscale", "a.png", "--tile", "big"], ["no-such-command"],
    ["upscale", "a.png", "--model", "no-such-model"], ["upscale", "a.png", "--odd"], ["eval", "bicubic"], [""],
    ["upscale", ""], ["upscale", "a.png", ""], ["upscale", "a.png", "-o", ""], ["upscale", "a.png", "--output="],
    ["degrade", "", "-o", "pairs"], ["degrade", "a.png", "-o", ""], ["compare", "a.png", "", "-o", "page.html"],
])  # fmt: skip
def test_a_wrong_option_is_one_line(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tddsr", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert len(written.err.splitlines()) == 1


def test_exit_codes_reach_the_shell(tmp_path, model, monkeypatch):
    source = picture(tmp_path / "a.png")
    for paths, code in (([source], 0), ([tmp_path / "none.png"], 1)):
        monkeypatch.setattr("sys.argv", ["tddsr", "upscale", *map(str, paths), "--model", str(model)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == code


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_odd_names_are_files_or_one_line(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = picture(tmp_path / "two\nlines.png")
    (tmp_path / "folder.png").mkdir()
    done = call("upscale", source, "-o", "more\nlines.png", "--model", model)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 1)
    assert (tmp_path / "more\nlines.png").is_file()
    assert call("upscale", source, "-o", "folder.png", "--model", model).exit_code == 0
    assert (tmp_path / "folder.png" / source.name).is_file()
    for name in ("no\nsuch.png", " ", "folder.png/none", "/dev/null", "/dev/zero"):
        failed = call("upscale", name, "--model", model)
        assert (failed.exit_code, len(failed.stderr.splitlines())) == (1, 1)
    for path, output in ((str(source), "folder.png"), (".", None), ("folder.png", None), (".", "b.png")):
        with pytest.raises(ImageError, match="folder"):
            tddsr.upscale(path, model=model, output=output)
    for path, output in (("", None), (str(source), "")):
        with pytest.raises(UsageError, match="empty"):
            tddsr.upscale(path, model=model, output=output)


def test_how_large_an_input_may_be_is_passed_on(tmp_path, model, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    source = picture(tmp_path / "a.png")
    refused = call("upscale", source, "--model", model)
    assert refused.exit_code == 1
    assert "--largest-input" in refused.stderr
    assert call("upscale", source, "--model", model, "--largest-input", 1).exit_code == 0  # the result is larger still
    small = picture(tmp_path / "small.png", 8, 8)
    assert call("upscale", small, "--model", model).exit_code == 0
    data = source.read_bytes()
    with pytest.raises(ImageError, match="largest_input"):
        tddsr.upscale(data, model=model)
    assert tddsr.upscale(data, model=model, largest_input=1)
    with pytest.raises(UsageError, match="more than 0"):
        tddsr.upscale(data, model=model, largest_input=0)


def test_the_seed_and_the_tile_are_passed_on(tmp_path, model, monkeypatch):
    source = picture(tmp_path / "a.png", 60, 60)

    def pixels(*options: str) -> np.ndarray:
        call("upscale", source, "--model", model, "--overwrite", *options)
        return np.asarray(Image.open(tmp_path / "a_x4.png")).astype(int)

    plain = pixels()
    tiles = []

    def spy(height, width, tile, *rest, **more):
        tiles.append(tile)
        return plan(height, width, tile, *rest, **more)

    monkeypatch.setattr(enlarge, "plan", spy)
    assert np.abs(pixels("--tile", "16") - plain).max() <= 1
    assert np.array_equal(pixels("--seed", "0", "--tile", "none"), plain)
    assert not np.array_equal(pixels("--seed", "1"), plain)
    assert tiles[0] == (16, 16)
    assert all(min(tile) >= 60 for tile in tiles[1:])


def test_pairs_are_reproducible(tmp_path):
    for name in ("a.png", "b.jpg"):
        picture(tmp_path / "in" / name, 41, 50)
    for out, seed in (("one", 3), ("two", 3), ("other", 4)):
        assert call("degrade", tmp_path / "in", "-o", tmp_path / out, "--seed", seed).exit_code == 0
    names = sorted(str(p.relative_to(tmp_path / "one")) for p in (tmp_path / "one").rglob("*.png"))
    assert names == ["hr/a.png", "hr/b.png", "lr/a.png", "lr/b.png"]
    assert Image.open(tmp_path / "one/hr/a.png").size == (48, 40)
    assert Image.open(tmp_path / "one/lr/a.png").size == (12, 10)
    for name in names:
        content = [(tmp_path / out / name).read_bytes() for out in ("one", "two", "other")]
        assert content[0] == content[1]
        assert (content[0] == content[2]) == name.startswith("hr")


def test_a_pair_depends_on_its_name_and_not_on_its_neighbours(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "in" / name)
    call("degrade", tmp_path / "in", "-o", tmp_path / "both")
    call("degrade", tmp_path / "in" / "b.png", "-o", tmp_path / "alone")
    lr = [(tmp_path / out / "lr" / "b.png").read_bytes() for out in ("both", "alone")]
    assert lr[0] == lr[1] != (tmp_path / "both" / "lr" / "a.png").read_bytes()


def test_degrade_reports_what_is_too_small(tmp_path):
    result = call("degrade", picture(tmp_path / "a.png", 3, 3), "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "3x3" in result.stderr


def test_a_wrong_recipe_is_exit_code_2():
    twice, elsewhere = ["compact-follow", "compact-follow"], ["compact-follow", "compact-sharpen", "out=runs/a"]
    dry = ["compact-follow", "compact-sharpen", "--dry-run"]
    for arguments in (["no-such-recipe"], ["compact-teacher", "data.bach=1"], ["steps=3"], twice, elsewhere, dry):
        result = call("train", *arguments)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
    assert recipe_files()


def test_a_dry_run_finds_a_damaged_checkpoint(photos, random_features, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.pt").write_bytes(b"hi")
    result = call(
        "train", "compact-teacher", "--dry-run", "--device", "cpu", f"out={tmp_path / 'out'}", f"data.train={photos}",
        "data.patch=64", f"features={random_features}", f"validation.folder={photos}", "validation.count=1",
        "validation.crop=32", "validation.lpips=[alexnet]",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "state.pt is damaged" in result.stderr


def test_missing_photos_are_one_line(tmp_path):
    result = call("train", "compact-teacher", f"data.train={tmp_path / 'none'}", f"features={tmp_path}")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_convert_halves_a_model_and_keeps_its_notes(model, student, tmp_path):
    save_model(student, model, notes="from step 7")
    out = tmp_path / "half.safetensors"
    assert call("convert", model, "-o", out, "--half").exit_code == 0
    assert out.stat().st_size < 0.7 * model.stat().st_size
    assert read_notes(out) == "from step 7"
    assert load_model(out).config == student.config
    assert call("convert", "no-such-model", "-o", out).exit_code == 2


def test_convert_of_several_models_is_their_mean(model, student, tmp_path):
    other, out = tmp_path / "other.safetensors", tmp_path / "mean.safetensors"
    shifted = load_model(model)
    shifted.network.state_dict()["head.bias"] += 1
    save_model(shifted, other)
    assert call("convert", model, other, "-o", out).exit_code == 0
    mean, start = (each.network.state_dict()["head.bias"] for each in (load_model(out), student))
    torch.testing.assert_close(mean, start + 0.5)
    for wrong in ((model, "no-such-model"), (model, other, "--as", "sinsr")):
        result = call("convert", *wrong, "-o", out)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1


def test_convert_makes_a_student_deterministic(tmp_path):
    student = small_rrdb(blocks=1)
    torch.nn.init.normal_(student.network.get_parameter("enter_x.weight"), std=0.2)
    save_model(student, tmp_path / "a.safetensors")
    done = call(
        "convert", tmp_path / "a.safetensors", "-o", tmp_path / "b.safetensors", "--deterministic", "--reach", 9
    )
    assert done.exit_code == 0
    still, lr = load_model(tmp_path / "b.safetensors"), torch.rand(1, 3, 8, 8)
    assert still.network.halo == 9 != student.network.halo
    noise = torch.randn(2, 1, still.channels, 8, 8)
    with torch.no_grad():
        assert not torch.equal(student.sample(lr, noise[0]), student.sample(lr, noise[1]))
        assert torch.equal(still.sample(lr, noise[0]), still.sample(lr, noise[1]))


def test_only_what_has_a_reach_or_one_step_is_changed_so(tmp_path):
    (tmp_path / "a.pth").touch()
    save_model(small_paper_model(), tmp_path / "paper.safetensors")
    save_model(small_model("teacher"), tmp_path / "teacher.safetensors")
    for name, option in (
        ("paper.safetensors", ["--reach", 9]),
        ("a.pth", ["--reach", 9]),
        ("teacher.safetensors", ["--deterministic"]),
    ):
        done = call("convert", tmp_path / name, "-o", tmp_path / "b.safetensors", *option)
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 1


def test_version_and_help():
    assert call("--version").stdout.strip() == __version__
    for command in ("upscale", "degrade", "train", "eval", "report", "compare"):
        assert call(command, "--help").exit_code == 0
