import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tddsr.cli import app
from tddsr.errors import ImageError, ResultError
from tddsr.evaluation.results import Result, read_result, saved_pictures
from tddsr.report import confidence
from tddsr.report.build import by_data_set, write_report
from tddsr.report.crops import Layer, compare, differing_window, embed, labels
from tddsr.report.tables import Notes, Source, Unmeasured, blocks, comparison
from tests.conftest import photo

METRICS = {
    "PSNR-Y": {"better": "higher", "range": [0, None], "needs": "reference", "missing": None},
    "LPIPS-Alex": {"better": "lower", "range": [0, 1], "needs": "reference", "missing": None},
    "FID": {"better": "lower", "range": [0, None], "needs": "set", "missing": None},
    "CLIPIQA": {
        "better": "higher",
        "range": [0, 1],
        "needs": "none",
        "missing": "needs clip.pt",
    },
}


def save_result(folder: Path, methods=("bicubic", "compact", "teacher"), count=12, size=256, **changes) -> Path:
    """A made-up result: each method is a little better than the one before it; three noise seeds but for bicubic."""
    rng = np.random.default_rng(0)
    scores, sets = [], []
    names = [f"{number:03}.webp" for number in range(count)]
    for place, method in enumerate(methods):
        for seed in range(1 if method == "bicubic" else 3):
            for name in names:
                values = {
                    "PSNR-Y": 24 + place + rng.normal(0, 1),
                    "LPIPS-Alex": 0.5 - 0.1 * place + rng.normal(0, 0.03),
                }
                scores.append({"method": method, "picture": name, "seed": seed, "values": values})
            sets.append({"method": method, "seed": seed, "values": {"FID": 80 - 9 * place + rng.normal(0, 0.5)}})
    result = {
        "format": "tddsr-eval-1",
        "name": folder.name,
        "dataset": {
            "name": "<made-up> pictures", "hr": "hr", "lr": None, "degradation": "resshift, seed 0", "pictures": count,
        },
        "protocol": {
            "scale": 4, "crop": None, "border": 0, "colour": "Y of BT.601", "tile": None, "dtype": "float32",
            "seeds": 3, "statement": f"{count} pairs, x4, whole pictures, mean over 3 noise seeds",
            "versions": {"tddsr": "0.1.0"},
        },
        "metrics": METRICS,
        "methods": {name: {"spec": name, "steps": 1, "quoted": False} for name in methods},
        "scores": scores,
        "sets": sets,
        "failures": [],
    } | changes  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    for number, name in enumerate(names[:5] if size else []):
        hr = Image.fromarray(photo(size, size + 64, number, noise=12))
        small = hr.resize((hr.width // 4, hr.height // 4), Image.Resampling.BOX)
        large = small.resize(hr.size, Image.Resampling.BICUBIC)
        made = {method: Image.blend(large, hr, place / len(methods)) for place, method in enumerate(methods)}
        for kind, picture in {"hr": hr, "lr": small, **made}.items():
            path = folder / "pictures" / kind / Path(name).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return folder


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# Results


def test_a_result_is_read_and_written_with_its_infinite_values(tmp_path):
    folder = save_result(tmp_path / "a", size=0)
    result = read_result(folder)
    first = result.scores[0].model_copy(update={"values": {"PSNR-Y": math.inf}})
    text = result.model_copy(update={"scores": [first]}).model_dump_json()
    assert '"PSNR-Y":"inf"' in text
    assert Result.model_validate_json(text).by_picture("bicubic", "PSNR-Y") == {"000.webp": {0: math.inf}}


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": "other"}'])
def test_what_is_no_result_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(ResultError) as error:
        read_result(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    done = call("report", tmp_path, "-o", tmp_path / "out")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)


def test_a_method_name_does_not_lead_out_of_the_folder(tmp_path):
    save_result(tmp_path / "a")
    assert saved_pictures(tmp_path / "a", "compact")
    elsewhere = tmp_path / "a" / "pictures"
    (elsewhere / "..\\compact").mkdir()  # on Windows beside it
    (elsewhere / "..\\compact" / "0.png").touch()
    for name in ("../../a/pictures/compact", str(elsewhere / "compact"), "..", "..\\compact", "C:\\compact", "C:"):
        assert not saved_pictures(tmp_path / "a", name)


# How sure a mean is


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = confidence.interval(values) or (0, 0)
    half = 1.96 * values.std() / 20
    assert abs(low - (values.mean() - half)) < 0.05
    assert abs(high - (values.mean() + half)) < 0.05
    assert confidence.interval(values) == (low, high)
    assert confidence.interval(values[:4]) is None


def test_infinite_scores_give_no_nonsense():
    some = np.array([30.0, np.inf, 31.0, 29.0, 30.0])
    low, high = confidence.interval(some) or (0, 0)
    assert 29 <= low < 31
    assert high == math.inf
    pair = confidence.paired(some, some, True)
    assert (pair.mean, pair.wins, pair.losses, pair.p) == (0, 0, 0, 1)
    assert confidence.spread([30.0, math.inf]) is None


def test_the_sign_test_is_the_binomial_one():
    assert confidence.sign_test(5, 0) == 2 / 32
    assert confidence.sign_test(1, 7) == pytest.approx(2 * 9 / 256)
    assert confidence.sign_test(4, 4) == 1


def test_a_lower_score_wins_where_lower_is_better():
    pair = confidence.paired(np.array([1.0, 2, 3]), np.array([2.0, 3, 2]), False)
    assert (pair.wins, pair.losses) == (2, 1)


# Tables


def test_best_and_second_best_by_the_metrics_direction(tmp_path):
    group = by_data_set([Source.read(save_result(tmp_path / "a", size=0))])[0]
    group.quoted = [
        Unmeasured(name, figures={"PSNR-Y": value}) for name, value in (("SinSR-1", "26.6221"), ("Ours-1", "26.8800"))
    ]
    group.absent = [Unmeasured("ResShift-15", "no weights")]
    notes = Notes()
    measured, quoted = blocks(group, notes)
    for column in range(3):  # higher, lower, lower is better: the made-up methods get better from first to last
        assert [row.cells[column].rank for row in measured.rows] == ["", "second", "best", ""]
    assert [row.cells[0].rank for row in quoted.rows] == ["second", "best"]
    assert quoted.rows[1].cells[0].text == "26.8800"
    assert "quoted" in quoted.rows[0].label
    assert [row.cells[3].text for row in measured.rows] == ["n/a"] * 4
    reasons = [notes.texts[number - 1] for number in (*measured.rows[0].cells[3].notes, *measured.rows[3].notes)]
    assert "clip.pt" in reasons[0]
    assert "no weights" in reasons[1]
    # One seed has no spread, a set no interval over pictures.
    assert not measured.rows[0].cells[0].spread
    assert measured.rows[1].cells[0].spread.startswith("±")
    assert measured.rows[1].cells[0].interval
    assert not measured.rows[1].cells[2].interval


def test_figures_that_read_the_same_are_ranked_the_same(tmp_path):
    values = {"a": 0.50001, "b": 0.50002, "c": 0.4}
    scores = [{"method": m, "picture": "1", "seed": 0, "values": {"LPIPS-Alex": v}} for m, v in values.items()]
    folder = save_result(tmp_path / "a", methods=tuple(values), size=0, scores=scores, sets=[])
    rows = blocks(by_data_set([Source.read(folder)])[0], Notes())[0].rows
    assert [row.cells[1].rank for row in rows] == ["second", "second", "best"]


def test_the_comparison_is_over_common_pictures(tmp_path):
    folder = save_result(tmp_path / "a", size=0)
    content = json.loads((folder / "result.json").read_text())
    content["scores"] = [s for s in content["scores"] if (s["method"], s["picture"]) != ("teacher", "003.webp")]
    content["failures"] = [{"method": "teacher", "picture": "003.webp", "reason": "too <large>"}]
    (folder / "result.json").write_text(json.dumps(content))
    group = by_data_set([Source.read(folder)])[0]
    rows, notes = comparison(group), Notes()
    assert [row.label for row in rows] == ["compact", "teacher"]
    assert "12 : 0, p < .001" in rows[0].cells[1].spread
    assert "11 : 0, p < .001" in rows[1].cells[1].spread
    teacher = blocks(group, notes)[0].rows[2]
    assert [notes.texts[n - 1] for n in teacher.cells[0].notes] == ["over 11 of 12 pictures"]
    assert teacher.notes


def test_only_what_was_scored_alike_is_put_together(tmp_path):
    first = save_result(tmp_path / "run-1", size=0)
    same = save_result(tmp_path / "run-2", methods=("compact",), size=0)
    protocol = json.loads((first / "result.json").read_text())["protocol"] | {"crop": 64}
    other = save_result(tmp_path / "c", size=0, protocol=protocol)
    groups = by_data_set([Source.read(folder) for folder in (first, same, other)])
    assert [len(group.measured) for group in groups] == [4, 3]
    assert len({row.label for row in groups[0].measured}) == 4
    assert groups[0].title != groups[1].title
    for page in write_report(groups, tmp_path / "page", "One protocol a group"):
        text = page.read_text(encoding="utf-8")
        places = 1 if page.suffix == ".md" else 3  # summary, label and row
        assert text.count(f"{first.name}, {same.name}") == places


def test_other_pictures_of_the_same_names_are_not_put_together(tmp_path):
    folders = [save_result(tmp_path / name, size=0) for name in "abc"]
    for folder, digest in zip(folders, ("1", "2", "1"), strict=True):
        content = json.loads((folder / "result.json").read_text())
        content["dataset"]["digest"] = digest
        (folder / "result.json").write_text(json.dumps(content))
    groups = by_data_set([Source.read(folder) for folder in folders])
    assert [len(group.measured) for group in groups] == [6, 3]
    assert len({group.title for group in groups}) == 2


# Pictures


def test_the_window_lies_where_pictures_differ():
    first = photo(120, 160)
    second = first.copy()
    second[41:70, 90:117] ^= 64
    difference, (left, top, right, bottom) = differing_window([first, second], 32)
    assert difference > 20
    assert (right - left, bottom - top) == (32, 32)
    assert (left % 4, top % 4) == (0, 0)
    assert left <= 92
    assert right >= 116
    assert top <= 44
    assert bottom >= 68
    assert differing_window([first, second], 512)[1] == (0, 0, 160, 120)


@pytest.mark.parametrize("allowance", [1_000_000, 30_000, 4_000])
def test_pictures_keep_to_the_budget(allowance):
    layers = [Layer(str(seed), Image.fromarray(photo(160, 160, seed, noise=20))) for seed in range(3)]
    view = embed("a", layers, allowance)
    assert sum(len(layer.url) for layer in view.layers) <= allowance + 3 * 30
    assert ("lossless" in view.encoding) == (allowance == 1_000_000)
    assert ("reduced" in view.encoding) == (allowance == 4_000)


def test_what_cannot_fit_is_an_error():
    with pytest.raises(ImageError, match="budget"):
        embed("a", [Layer("a", Image.fromarray(photo(64, 64)))], 10)


# Pages


class Page(HTMLParser):
    """What a page asks for, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    done = call("report", save_result(root / "one"), "-o", root / "out", "--title", "A <title>", "--pictures", 2)
    assert done.exit_code == 0, done.stderr
    return root / "out"


def test_the_page_asks_nobody_for_anything(report):
    text = (report / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp", text)
    assert "default-src 'none'" in text
    assert "A <title>" in "".join(page.texts)
    assert "made-up" not in page.tags
    assert page.tags.count("input") == 2
    # whole picture, input, three methods, truth; and the two of the stage
    assert page.tags.count("img") == 2 * 8


def test_the_page_keeps_to_its_budget(report, tmp_path):
    write_report(by_data_set([Source.read(report.parent / "one")]), tmp_path, "Small", pictures=3, budget=60_000)
    embedded = re.findall('data:image/[^"]*', (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(embedded) == 3 * 6
    assert sum(map(len, embedded)) < 60_000 + 30 * len(embedded)


def test_the_same_results_give_the_same_page(report, tmp_path):
    write_report(by_data_set([Source.read(report.parent / "one")]), tmp_path, "A <title>", pictures=2)
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (report / name).read_bytes()


def test_the_markdown_has_the_table_and_the_protocol(report):
    text = (report / "report.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| teacher")]
    assert rows[0].count("**") == 6
    assert all(line.count("|") == 6 for line in text.splitlines() if line.startswith("|"))
    assert "12 pairs, x4, whole pictures, mean over 3 noise seeds" in text
    assert "[^1]: CLIPIQA: needs clip.pt" in text


def test_results_without_pictures_or_scores_still_give_a_page(tmp_path):
    failures = [{"method": "sinsr", "picture": "", "reason": "no weights here"}]
    folder = save_result(tmp_path / "a", size=0, scores=[], sets=[], failures=failures)
    assert call("report", folder, "-o", tmp_path / "out").exit_code == 0
    assert "no weights here" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_one_method_without_truth_is_not_compared_with_itself(tmp_path):
    folder = save_result(tmp_path / "a", methods=("compact",))
    shutil.rmtree(folder / "pictures" / "hr")
    assert call("report", folder, "-o", tmp_path / "out").exit_code == 0
    assert "No crops" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_the_slider_works_in_a_browser(report, tmp_path):
    # What a person would do, at the end of the page; the findings go into an attribute that the dump shows.
    script = """<script>
    const found = {}, view = document.querySelector(".view"), stage = view.querySelector(".stage");
    const range = stage.querySelector("input"), left = view.querySelector("select.left");
    addEventListener("load", () => {
      found.loaded = [...document.images].every((picture) => picture.naturalWidth > 0);
      found.focusable = (range.focus(), document.activeElement === range);
      range.value = 25; range.dispatchEvent(new Event("input"));
      found.keyboard = stage.style.getPropertyValue("--at");
      const box = stage.getBoundingClientRect(), at = { clientX: box.left + box.width * 0.75, clientY: box.top + 5 };
      stage.setPointerCapture = () => {};
      stage.dispatchEvent(new PointerEvent("pointerdown", at));
      found.pointer = Math.round(range.value);
      stage.dispatchEvent(new PointerEvent("pointerup", at));
      left.value = 0; left.dispatchEvent(new Event("change"));
      found.tag = stage.querySelector(".left .tag").textContent;
      found.same = stage.querySelector(".left img").src === view.querySelectorAll("[data-layer]")[0].src;
      view.querySelector(".swap").click();
      found.swapped = stage.querySelector(".right .tag").textContent;
      view.querySelector(".zoom button[value='4']").click();
      found.zoom = stage.querySelector("img").style.transform;
      found.fits = document.documentElement.scrollWidth <= innerWidth;
      document.body.setAttribute("data-found", JSON.stringify(found));
    });
    </script>"""
    page = tmp_path / "page.html"
    page.write_text((report / "report.html").read_text(encoding="utf-8") + script, encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=500,900", "--virtual-time-budget=5000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    match = re.search(r'data-found="([^"]*)"', dom)
    assert match, dom[-500:]
    found = json.loads(match[1].replace("&quot;", '"'))
    assert found.pop("zoom").endswith("scale(4)")
    assert found == {
        "loaded": True, "focusable": True, "keyboard": "25%", "pointer": 75, "tag": "input", "same": True,
        "swapped": "input", "fits": True,
    }  # fmt: skip


# A user's own pictures


def save_picture(path: Path, height: int, width: int, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(height, width)).convert(mode).save(path)
    return path


def test_compare_writes_a_page_of_files(tmp_path):
    small, large = save_picture(tmp_path / "a.png", 20, 30), save_picture(tmp_path / "a_x4.png", 80, 120, "RGBA")
    grey = save_picture(tmp_path / "b" / "a.webp", 40, 60, "L")
    done = call("compare", small, large, grey, "-o", tmp_path / "page.html", "--names", "before, after,<half>")
    assert done.exit_code == 0, done.stderr
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert all(address.startswith("data:") for address in page.addresses)
    assert {"before", "after", "<half>"} <= {text.strip() for text in page.texts}
    views, count = compare([small, large], ["a", "b"], 12, 10**6)
    assert (count, views[0].size) == (1, (120, 80))
    assert [layer.enlarged for layer in views[0].layers] == [True, False]


def test_compare_pairs_folders_by_name(tmp_path):
    for name in ("a.png", "sub/b.png", "only.png"):
        save_picture(tmp_path / "one" / name, 16, 24)
    for name in ("a.webp", "sub/b.png"):
        save_picture(tmp_path / "two" / name, 32, 48)
    views, count = compare([tmp_path / "one", tmp_path / "two"], ["1", "2"], 1, 10**6)
    assert ([view.title for view in views], count) == (["a"], 2)


def test_pictures_that_cannot_be_compared_are_one_line(tmp_path):
    one, other = save_picture(tmp_path / "a.png", 20, 30), save_picture(tmp_path / "b.png", 80, 119)
    save_picture(tmp_path / "c" / "x.png", 20, 30)
    for inputs in ([one, other], [one, tmp_path / "none.png"], [one, tmp_path / "c"], [tmp_path, tmp_path / "c"]):
        done = call("compare", *inputs, "-o", tmp_path / "page.html")
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert call("compare", one, "-o", tmp_path / "page.html").exit_code == 2
    assert not (tmp_path / "page.html").exists()


def test_labels_tell_inputs_apart():
    assert labels([Path("a/x.png"), Path("b/y.png")]) == ["x", "y"]
    assert labels([Path("a/x.png"), Path("b/x.jpg")]) == ["a/x", "b/x"]
    assert len(set(labels([Path("a/x.png"), Path("a/x.jpg")]))) == 2
