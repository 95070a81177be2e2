"""Scenes that are spoilt once and kept with their teacher's pictures; what a student is drawn to."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from rich.console import Console

from tddsr import rng
from tddsr.errors import DataError
from tddsr.training import drawings
from tddsr.training.data import Scenes, scene_settings
from tddsr.training.distill import DistillTask, low_band
from tddsr.training.drawings import draw
from tddsr.training.load import load_recipe
from tddsr.training.loop import Run
from tddsr.training.start import prepare
from tddsr.weights.file import save_model
from tests.conftest import SMALL_RRDB, changed, small_rrdb

CPU, QUIET = torch.device("cpu"), Console(quiet=True)


@pytest.fixture
def follow(distill, tmp_path):
    """A student of Real-ESRGAN's kind that starts as its teacher, made smaller."""
    save_model(small_rrdb("teacher"), tmp_path / "rrdb.safetensors")
    data = {**distill.data.model_dump(), "scenes": 3, "scene": 96, "patch": 64, "degradation": {"clean": 1, "web": 1}}
    return changed(
        distill, teacher=tmp_path / "rrdb.safetensors", network=SMALL_RRDB, targets=tmp_path / "targets", data=data
    )


def ready(recipe) -> Run:
    return prepare(recipe, CPU, QUIET)


def student_of(run: Run) -> DistillTask:
    assert isinstance(run.task, DistillTask)
    return run.task


def scenes_of(run: Run) -> Scenes:
    assert isinstance(run.source, Scenes)
    return run.source


def players(run):
    return torch.cat([weight.detach().flatten() for weight in run.task.model.parameters()])


def test_a_student_of_one_step_teaches_what_it_makes(follow, tmp_path):
    save_model(small_rrdb("student"), tmp_path / "student.safetensors")
    smaller = changed(follow, teacher=tmp_path / "student.safetensors", keep_blocks=[1])
    lr = torch.randint(256, (1, 3, 12, 12), dtype=torch.uint8)
    whole, small = student_of(ready(follow)), student_of(ready(smaller))
    assert torch.equal(small.teach(lr), whole.teach(lr))
    kept, teachers = small.model.network.state_dict(), small.teacher.network.state_dict()
    assert torch.isin(kept["body.0.rdb1.conv5.bias"], teachers["body.1.rdb1.conv5.bias"]).all()


def test_patches_are_cut_alike_from_all_three_pictures(follow):
    run = ready(follow)
    seen = set()
    for number in range(12):
        hr, lr, taught = run.source[number]
        assert (hr.shape, lr.shape, taught.shape) == ((2, 3, 64, 64), (2, 3, 16, 16), (2, 3, 64, 64))
        # What is cut, turned and mirrored alike still shows the same: reduced, they are near each other.
        small = F.avg_pool2d(hr.float(), 4)
        near = (small - lr.float()).abs().mean()
        assert all(near < (small - lr.float().flip(axis)).abs().mean() for axis in (2, 3))
        seen.add(bytes(hr.numpy().tobytes()))
    assert len(seen) == 12
    assert len(list(follow.targets.rglob("*.safetensors"))) == 3
    again = ready(follow).source[5]
    assert all(map(torch.equal, again, run.source[5]))


def test_a_scenes_target_is_its_teachers_picture(follow):
    run = ready(follow)
    _, lr, taught = scenes_of(run).scene(1)
    lr = lr[None].float() / 127.5 - 1
    made = student_of(run).teacher.sample(lr, torch.zeros(1, 48, *lr.shape[-2:]))
    expected = ((made + 1) * 127.5).clamp(0, 255)
    assert (expected - taught.float()).abs().max() <= 0.51


def test_a_full_folder_spares_the_teacher_and_changes_nothing(follow, tmp_path, monkeypatch):
    weights = []
    for name in ("first", "second"):
        run = ready(changed(follow, out=tmp_path / name))
        if name == "second":
            for way in ("sample", "predictor"):
                monkeypatch.setattr(student_of(run).teacher, way, None)
        run.run()
        weights.append(players(run))
    assert torch.equal(*weights)
    assert len(list(follow.targets.rglob("*.safetensors"))) == 3


def test_other_settings_are_other_scenes(follow):
    folders = {
        scenes_of(ready(settings)).folder
        for settings in (
            follow,
            changed(follow, steps=4),
            changed(follow, data={**follow.data.model_dump(), "batch": 1, "scenes": 2}),
            changed(follow, data={**follow.data.model_dump(), "degradation": {"clean": 1}}),
            changed(follow, data={**follow.data.model_dump(), "drawings": 0.5}),
            changed(follow, seed=7),
        )
    }
    assert len(folders) == 4  # the first three are one


def test_a_damaged_scene_says_what_to_do(follow):
    run = ready(follow)
    scenes_of(run).scene(0)
    (file,) = follow.targets.rglob("*.safetensors")
    file.write_bytes(b"broken")
    with pytest.raises(DataError, match="delete it"):
        scenes_of(run).scene(0)


def test_scenes_need_a_folder_and_a_teacher_that_sees_lr_alone(follow, distill):
    with pytest.raises(ValidationError, match="targets"):
        changed(follow, targets=None)
    with pytest.raises(ValueError, match="one step"):
        ready(changed(distill, data=follow.data.model_dump(), targets=follow.targets))


def drawn_to(follow, guide, student, teacher, hr):
    """Where the terms of a batch of two pull, with the student's and the teacher's pictures given."""
    loss = {**follow.loss.model_dump(), "guide": guide, "distill": 0, "truth": 1, "lpips": 0.1}
    run = ready(changed(follow, loss=loss))
    encode = run.task.model.space.encode
    return student_of(run)._guide(
        run._batch((hr, hr[..., ::4, ::4], teacher), 0, 0), encode(teacher / 127.5 - 1), encode(student)
    )


def test_a_patch_is_drawn_to_the_truth_where_the_teacher_is_behind(follow):
    hr = torch.randint(0, 256, (2, 3, 64, 64), generator=rng.generator(0)).float()
    flat = torch.full_like(hr, 127)
    student = torch.stack([hr[0], flat[1]]) / 127.5 - 1  # the first is right, the second is not
    teacher = torch.stack([flat[0], hr[1]])  # the other way round
    for guide, expected in (("truth", hr), ("teacher", teacher), ("nearer", torch.stack([hr[0], teacher[1]]))):
        found = drawn_to(follow, guide, student, teacher, hr)
        torch.testing.assert_close(found, expected / 127.5 - 1, atol=1e-5, rtol=0)


def test_guides_that_cannot_be_are_refused(follow, recipe):
    with pytest.raises(ValidationError, match=r"lpips above 0"):
        changed(follow, loss={"guide": "nearer", "truth": 1})
    with pytest.raises(ValidationError, match="needs a teacher"):
        changed(recipe, loss={**recipe.loss.model_dump(), "guide": "teacher"})


def test_the_discriminator_learns_before_the_student_minds_it(follow):
    """The student's weights are as without it, until it does."""
    loss = {**follow.loss.model_dump(), "hr": 0.5}
    adversary = {"hr": {"kind": "pixels", "channels": 4}, "ahead": 4, "loss": "bce"}
    alone, waiting, minding = (
        changed(follow, out=follow.out / name, steps=4, loss=terms, adversary=settings)
        for name, terms, settings in (
            ("alone", follow.loss.model_dump(), {}),
            ("waiting", loss, adversary),
            ("minding", loss, {**adversary, "ahead": 0}),
        )
    )
    weights, judges = [], []
    for settings in (alone, waiting, minding):
        run = ready(settings)
        others = [player for name, player in run.task.players.items() if name != "model"]
        before = [weight.detach().clone() for player in others for weight in player.parameters]
        run.run()
        weights.append(players(run))
        after = [weight for player in others for weight in player.parameters]
        judges.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert judges == [False, True, True]


def test_drawings_are_the_same_for_the_same_chance_and_have_hard_edges():
    one, same, other = (draw(96, rng.generator(seed)) for seed in (1, 1, 2))
    assert one.shape == (3, 96, 96)
    assert one.dtype == torch.uint8
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    steps = torch.stack([draw(96, rng.generator(3, seed)).float().diff(dim=2).abs().amax() for seed in range(12)])
    assert steps.median() > 100


def test_the_shipped_recipes_share_their_scenes():
    first, second = (load_recipe(name) for name in ("compact-follow", "compact-sharpen"))
    assert scene_settings(first.data) == scene_settings(second.data)
    assert (first.seed, first.data.train, first.teacher) == (second.seed, second.data.train, second.teacher)


def test_scenes_larger_than_their_patches_are_asked_for(follow):
    with pytest.raises(ValidationError, match="larger than"):
        changed(follow, data={**follow.data.model_dump(), "scene": 60})


def test_scenes_that_several_processes_make_ahead_are_those_that_one_makes(follow):
    runs = [
        ready(changed(follow, targets=follow.out / name, data={**follow.data.model_dump(), "workers": workers}))
        for name, workers in (("one", 0), ("several", 2))
    ]
    scenes = [scenes_of(run) for run in runs]
    scenes[1].make_all(2)
    assert len(list(scenes[1].folder.iterdir())) == scenes[1].count
    for index in range(scenes[0].count):
        (hr, lr, target), (other_hr, other_lr, other_target) = (each.scene(index) for each in scenes)
        assert torch.equal(hr, other_hr)
        assert torch.equal(lr, other_lr)
        assert (target.int() - other_target.int()).abs().max() <= 1  # of batches of another size
    for run in runs:
        run.run()
    assert torch.allclose(players(runs[0]), players(runs[1]), atol=1e-3)


def test_scenes_can_be_sent_to_other_processes(follow):
    scenes = scenes_of(ready(follow))
    sent = pickle.loads(pickle.dumps(scenes))
    assert all(map(torch.equal, sent.pair(1), scenes.pair(1)))
    assert all(map(torch.equal, scenes[0], sent[0]))  # those that it needs are made by then


def test_a_dry_run_makes_the_scenes_of_its_step_alone(follow):
    run = ready(changed(follow, data={**follow.data.model_dump(), "workers": 2, "scenes": 20}))
    run.try_step()
    assert len(list(scenes_of(run).folder.iterdir())) <= run.recipe.data.batch


def test_a_mix_is_the_same_in_any_order(follow):
    mixes = ({"clean": 1, "web": 2}, {"web": 2, "clean": 1, "blurred": 0})
    runs = [ready(changed(follow, data={**follow.data.model_dump(), "degradation": mix})) for mix in mixes]
    assert scenes_of(runs[0]).folder == scenes_of(runs[1]).folder
    assert runs[0]._fingerprint() == runs[1]._fingerprint()


def test_drawings_without_fonts_say_what_to_do(monkeypatch):
    monkeypatch.setattr(drawings, "entry_points", lambda group: ())
    drawings.fonts.cache_clear()
    with pytest.raises(DataError, match="pip install"):
        drawings.fonts()
    drawings.fonts.cache_clear()


def test_the_low_band_is_what_is_smooth():
    ramp = torch.linspace(-1, 1, 125).expand(1, 3, 90, -1)
    inside = slice(16, -16)
    torch.testing.assert_close(low_band(ramp)[..., inside], ramp[..., inside], atol=1e-5, rtol=0)
    torch.testing.assert_close(low_band(torch.full((1, 3, 64, 96), 0.3)), torch.full((1, 3, 64, 96), 0.3))
    fine = torch.rand(1, 3, 128, 128, generator=rng.generator(0)) - 0.5
    assert low_band(fine).abs().max() < 0.1


def test_a_teachers_shift_of_colour_is_not_taught(follow):
    """Its detail is."""
    hr, lr, taught = ready(follow).source[0]
    shifted = torch.stack([taught[:, 0] // 2, taught[:, 1] // 2 + 60, taught[:, 2] // 2 + 90], dim=1)
    found = []
    for band in ("teacher", "truth"):
        run = ready(changed(follow, loss={**follow.loss.model_dump(), "low_band": band}))
        batch = run._batch((hr, lr, shifted), 0, 0)
        found.append(run.task.model.space.decode(student_of(run)._target(batch, batch.lr)) - batch.hr)
    assert low_band(found[1]).abs().mean() < 0.3 * low_band(found[0]).abs().mean()
    torch.testing.assert_close(found[1] - low_band(found[1] - found[0]), found[0], atol=0.2, rtol=0)
    with pytest.raises(ValidationError, match=r"needs data\.scenes"):
        changed(follow, loss={**follow.loss.model_dump(), "low_band": "truth"}, data={})


def test_a_student_may_start_from_another_schedule_than_its_teachers(follow, student, tmp_path):
    """Kept pictures come from lr alone, so the student keeps the noise that it knows."""
    save_model(student, tmp_path / "start.safetensors")
    run = ready(changed(follow, start=tmp_path / "start.safetensors", network=None))
    assert run.task.model.config == student.config
    assert student_of(run).teacher.config.schedule != student.config.schedule
    run.run()
    with pytest.raises(ValueError, match="another schedule"):
        ready(
            changed(
                follow,
                start=tmp_path / "start.safetensors",
                network=None,
                data={**follow.data.model_dump(), "scenes": None},
            )
        )
