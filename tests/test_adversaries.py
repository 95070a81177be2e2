"""The student against its discriminators: who learns what, from whom, and in which order."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tddsr.errors import DataError, RecipeError, TrainingError
from tddsr.training import losses
from tddsr.training.adversary import DiscriminatorWatch, DownsamplerWatch
from tddsr.training.distill import DistillTask
from tddsr.training.load import load_recipe
from tddsr.training.start import prepare
from tests.conftest import changed
from tests.test_training import CPU, QUIET, assert_same, players_of


def with_adversary(recipe, **values):
    return changed(recipe, adversary={**recipe.adversary.model_dump(), **values})


def task_of(recipe):
    run = prepare(recipe, CPU, QUIET)
    assert isinstance(run.task, DistillTask)
    return run, run.task, run._batch(run.patches[0], 0, 0)


def weights(task):
    return {name: [p.detach().clone() for p in player.network.parameters()] for name, player in task.players.items()}


def moved(before, task):
    after = weights(task)
    return {
        name for name in before if any(not torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True))
    }


def gradients(task):
    """Players that hold a gradient that is not zero."""
    return {
        name for name, player in task.players.items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in player.network.parameters())
    }  # fmt: skip


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("hr", "lr", "players"), [
    (0, 0, {"model"}), (0.1, 0, {"model", "hr_discriminator"}), (0, 0.1, {"model", "lr_discriminator", "downsampler"}),
    (0.1, 0.1, {"model", "hr_discriminator", "lr_discriminator", "downsampler"}),
])  # fmt: skip
def test_who_plays_follows_from_the_weights_and_everyone_learns(tddsr, hr, lr, players):
    run, task, *_ = task_of(changed(tddsr, loss={**tddsr.loss.model_dump(), "hr": hr, "lr": lr}))
    assert task.players.keys() == players
    before = weights(task)
    for _ in range(2):
        run._train_step(iter([run.patches[run.step]]))
        run.step += 1
    assert moved(before, task) == players


def test_no_players_gradient_leaks_into_another(tddsr):
    _, task, batch = task_of(tddsr)
    everything = {"distill", "hr", "lr"}
    before = weights(task)
    judged, _ = task._student_phase(batch, 0, everything)
    assert gradients(task) == moved(before, task) == {"model", "downsampler"}  # both minimise Eq. 10
    assert not any(made.requires_grad for made in judged.values())
    for player in task.players.values():
        player.optimizer.zero_grad()

    before = weights(task)
    task._adversary_phase("hr", batch, judged["hr"], 0)
    assert gradients(task) == moved(before, task) == {"hr_discriminator"}
    for player in task.players.values():
        player.optimizer.zero_grad()

    before = weights(task)
    task._adversary_phase("lr", batch, judged["lr"], 0)
    assert gradients(task) == moved(before, task) == {"lr_discriminator"}
    assert all(p.grad is None for p in task.teacher.parameters())
    frozen = task.adversaries["hr"].networks[0].features
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())


def test_the_students_gradient_is_the_sum_of_its_terms(tddsr):
    """Taken term by term at the student's output, it is what autograd makes of the summed loss."""
    _, task, batch = task_of(tddsr)
    task._student_phase(batch, 0, {"distill", "hr", "lr"})
    ours = [p.grad.clone() for p in task.model.parameters() if p.grad is not None]

    _, task, batch = task_of(changed(tddsr, out=tddsr.out / "again"))
    y, chance, weight = task.model.encode_lr(batch.lr), batch.generator, task.weights
    x_0 = task._estimate(batch, y)
    picture = task.model.space.decode(x_0)
    terms = task.loss(task.model, x_0, batch.hr, chance)
    terms["distill"] = weight.distill * (x_0 - task._target(batch, y)).square().mean()
    terms["hr"] = weight.hr * task.adversaries["hr"].against(picture, chance)
    terms["lr"] = weight.lr * task.adversaries["lr"].against(task.downsampler(picture, chance), chance)
    task.players["model"].update(torch.stack(list(terms.values())).sum(), 0)
    theirs = [p.grad for p in task.model.parameters() if p.grad is not None]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_cyclic_takes_the_parts_in_turn(tddsr):
    run, task, *_ = task_of(with_adversary(tddsr, update="cyclic"))
    expected = [
        ({"model"}, {"truth", "lpips", "distill"}),
        ({"model", "hr_discriminator"}, {"adversarial_hr"}),
        ({"model", "lr_discriminator", "downsampler"}, {"adversarial_lr"}),
    ]
    for players, terms in expected * 2:
        before = weights(task)
        values = run._train_step(iter([run.patches[run.step]]))
        run.step += 1
        assert moved(before, task) == players
        assert {name for name in values if f"gradient_of/{name}" in values} == terms


def test_adaptive_weights_are_ratios_of_gradients(tddsr):
    _, task, batch = task_of(
        with_adversary(changed(tddsr, loss={**tddsr.loss.model_dump(), "lpips": 0, "distill": 0}), adaptive=True)
    )
    *_, values = task._student_phase(batch, 0, {"distill", "hr", "lr"})
    for name in ("adversarial_hr", "adversarial_lr"):
        # The logged norm is of the weighted term, as it was; the factor takes it to that of the other terms.
        scaled = values[f"gradient_of/{name}"] * values[f"factor_of/{name}"]
        assert float(scaled / values["gradient_of/truth"]) == pytest.approx(0.1, rel=1e-3)
    with pytest.raises(ValueError, match="update=joint"):
        with_adversary(tddsr, adaptive=True, update="cyclic")


def test_features_can_be_trained_too(tddsr):
    looks = {"features": "alexnet", "size": 64, "train_features": True}
    run, task, *_ = task_of(with_adversary(tddsr, hr=looks))
    before = weights(task)
    run._train_step(iter([run.patches[0]]))
    names = [name for name, _ in task.players["hr_discriminator"].network.named_parameters()]
    after = weights(task)["hr_discriminator"]
    for name, old, new in zip(names, before["hr_discriminator"], after, strict=True):
        assert not torch.equal(old, new), name
    assert all(p.grad is None for p in task.adversaries["lr"].networks[0].features.parameters())


def test_both_kinds_of_discriminator_count_alike(tddsr):
    parts = {"features": {"features": "alexnet", "size": 64}, "pixels": {"kind": "pixels", "channels": 4}}
    run, task, batch = task_of(with_adversary(tddsr, hr={"kind": "both", **parts}))
    adversary, chance = task.adversaries["hr"], torch.Generator().manual_seed(0)
    adversary.networks.eval()  # spectral norm stands still
    features, pixels = (losses.generator("hinge", network(batch.hr, chance)) for network in adversary.networks)
    told = adversary.against(batch.hr, chance.manual_seed(0))
    torch.testing.assert_close(told, (features + pixels) / 2)
    adversary.networks.train()
    before = {name: weight.clone() for name, weight in adversary.networks.named_parameters()}
    run._train_step(iter([run.patches[0]]))
    for name, weight in adversary.networks.named_parameters():
        # Within hinge's bounds the last bias is drawn up by real pictures as much as down by made ones.
        assert weight.ndim == 1 or not torch.equal(before[name], weight), name


def test_mixed_precision_trains_all_four(tddsr):
    run, task, *_ = task_of(changed(tddsr, precision="bfloat16"))
    before = weights(task)
    run._train_step(iter([run.patches[0]]))
    assert moved(before, task) == task.players.keys()
    assert all(p.dtype == torch.float32 for player in task.players.values() for p in player.network.parameters())


@pytest.mark.parametrize("kind", ["hinge", "bce", "paper"])
def test_every_adversarial_loss_trains(tddsr, kind):
    run, task, *_ = task_of(with_adversary(tddsr, loss=kind))
    before = weights(task)
    run._train_step(iter([run.patches[0]]))
    assert moved(before, task) == task.players.keys()


def test_pretraining_comes_first_and_the_student_waits(tddsr):
    settings = with_adversary(tddsr, pretrain={"hr": 2, "downsampler": 2, "lr": 1})
    run, task, *_ = task_of(settings)
    assert run.end == settings.steps + 5
    numbers = [number for step in range(run.end) for number in settings.batch_numbers(step)]
    assert numbers == [6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5]  # the student sees those it would see without
    order = [{"hr_discriminator"}] * 2 + [{"downsampler"}] * 2 + [{"lr_discriminator"}]
    for players in [*order, {"model", "hr_discriminator", "lr_discriminator", "downsampler"}]:
        before = weights(task)
        run._train_step(iter([run.patches[run.step]]))
        run.step += 1
        assert moved(before, task) == players
    run.run()
    scores = (settings.out / "scores.jsonl").read_text().splitlines()
    assert len(scores) == 2  # at the student's steps 3 and 6, not while it waits


def test_pretraining_is_at_the_full_rate_of_who_learns(tddsr):
    own = {"rate": 1e-3, "warmup": 100}
    settings = with_adversary(tddsr, pretrain={"hr": 1, "downsampler": 1, "lr": 1}, downsampler_optim=own)
    run, task, *_ = task_of(settings)
    for name in ("hr_discriminator", "downsampler", "lr_discriminator"):
        run._train_step(iter([run.patches[run.step]]))
        run.step += 1
        player = task.players[name]
        assert player.optimizer.param_groups[0]["lr"] == player.config.rate


def test_pretraining_of_nobody_is_refused():
    with pytest.raises(RecipeError, match=r"pretrain\.hr.*loss\.hr"):
        load_recipe("compact-distill", ["adversary.pretrain.hr=5"])
    with pytest.raises(RecipeError, match="no discriminators"):
        load_recipe("compact-teacher", ["loss.hr=1"])


def test_kept_targets_change_nothing(tddsr, tmp_path, monkeypatch):
    """With an empty folder or a full one: the same weights; and a full one spares the teacher."""
    runs = []
    for name in ("first", "second"):
        settings = changed(tddsr, out=tmp_path / name, targets=tmp_path / "targets", steps=3)
        run, task, *_ = task_of(settings)
        if name == "second":
            monkeypatch.setattr(task.teacher, "predictor", None)
        run.run()
        runs.append(run)
    assert_same(players_of(runs[0]), players_of(runs[1]))
    with pytest.raises(TrainingError, match="kept_targets"):  # they are rounded: not the same run without
        prepare(changed(runs[0].recipe, targets=None), CPU, QUIET).resume()
    assert len(list((tmp_path / "targets").rglob("*.safetensors"))) == 3


def test_targets_of_other_pictures_are_refused(tddsr, tmp_path, photos):
    settings = changed(tddsr, targets=tmp_path / "targets")
    run, *_ = task_of(settings)
    run._train_step(iter([run.patches[0]]))
    with pytest.raises(DataError, match="other pictures"):
        run._train_step(iter([run.patches[0].flip(-1)]))
    for file in (tmp_path / "targets").rglob("*.safetensors"):
        file.write_bytes(b"broken")
    with pytest.raises(DataError, match="delete it"):
        run._train_step(iter([run.patches[0]]))


def test_the_watch_warns_once_of_a_discriminator_that_wins_or_collapses():
    chance = torch.Generator().manual_seed(0)

    def near(accuracy):
        return accuracy + 0.05 * float(torch.randn((), generator=chance))

    watches = {name: DiscriminatorWatch() for name in ("always right", "collapsed", "fine", "young")}
    said: dict[str, list[str | None]] = {name: [] for name in watches}
    for step in range(600):
        watches["always right"].add(min(1.0, near(0.9) if step < 50 else near(1.04)))
        watches["collapsed"].add(near(0.5))
        watches["fine"].add(near(0.7))
        watches["young"].add(near(0.5) if step < 200 else near(0.6))
        for name, watch in watches.items():
            said[name].append(watch.warning())
    texts = {name: [text for text in column if text] for name, column in said.items()}
    assert not texts["fine"]
    assert not texts["young"]
    for name in ("always right", "collapsed"):
        assert texts[name]
        assert all(name in text for text in texts[name])
        assert len(texts[name]) < 10


def test_the_watch_warns_of_a_downsampler_that_leaves_the_pairs_or_idles():
    for figures, steps, word in (
        ((0.2, 0.1, 0.2), 150, "left the pairs"),
        ((0.1, 0.1, 0.001), 1200, "mean of 4x4"),
        ((0.1, 0.1, 0.05), 1200, None),
    ):
        watch = DownsamplerWatch()
        said: list[str] = []
        for _ in range(steps):
            watch.add(*figures)
            said += filter(None, [watch.warning()])
        assert len(said) == (word is not None)
        assert word is None or word in said[0]


def test_a_tie_keeps_the_downsampler_at_the_pairs(tddsr):
    """Its own rate and term; before the student minds the discriminator it learns from the pairs alone."""
    errors = {}
    for tie in (0.0, 1.0):
        conv = {"downsampler": {"kind": "conv", "width": 4}, "downsampler_optim": {"rate": 1e-2}, "tie": tie}
        run, task, batch = task_of(with_adversary(tddsr, **conv))
        for _ in range(25):
            run._train_step(iter([run.patches[run.step % 2]]))
            run.step += 1
        with torch.no_grad():
            errors[tie] = float((task.downsampler(batch.hr, generator()) - batch.lr).abs().mean())
    assert errors[1.0] < 0.8 * errors[0.0]
    run, task, *_ = task_of(with_adversary(tddsr, ahead=5, tie=1.0))
    before = weights(task)
    values = run._train_step(iter([run.patches[0]]))
    assert "downsampler" in moved(before, task)
    assert "adversarial_lr" not in values
    assert values["downsampler/error"] > 0


def test_logs_hold_what_a_trainer_watches(tddsr):
    """In TensorBoard's own files, also where the parts take turns and a step has not every value."""
    run, task, *_ = task_of(changed(with_adversary(tddsr, update="cyclic"), log_every=3))
    run.run()
    events = EventAccumulator(str(run.folder)).Reload()
    assert set(events.Tags()["images"]) == {"training/downsampler", "validation/student"}
    values = {tag.removeprefix("training/"): events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    for name in ("truth", "lpips", "distill", "adversarial_hr", "adversarial_lr"):
        assert values[f"gradient_of/{name}"] > 0
    for name in ("hr_discriminator", "lr_discriminator"):
        assert 0 <= values[f"{name}/right_on_real"] <= 1
    assert values["validation/student/psnr_y"] > 0
    shown = task.pictures()["downsampler"]
    side = tddsr.data.patch // 4
    assert shown.shape == (3, 4 * side, tddsr.data.batch * side)
