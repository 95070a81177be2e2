import pickle

import pytest
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tddsr.errors import ModelError
from tddsr.model import ModelConfig
from tddsr.weights.convert import average_models
from tddsr.weights.file import save_model, source_of
from tddsr.weights.names import fingerprint, load_model, read_notes
from tests.derived import small_paper_model


def test_models_survive_a_round_trip(teacher, tmp_path):
    save_model(teacher, tmp_path / "a.safetensors")
    again = load_model(tmp_path / "a.safetensors")
    assert again.config == teacher.config
    lr, eps = torch.rand(1, 3, 8, 8), torch.randn(1, 48, 8, 8)
    assert torch.equal(again.sample(lr, eps, steps=2), teacher.sample(lr, eps, steps=2))


def test_half_precision_files_load_as_float32(student, tmp_path):
    save_model(student, tmp_path / "a.safetensors", torch.float16)
    again = load_model(tmp_path / "a.safetensors")
    assert next(again.parameters()).dtype == torch.float32
    lr, eps = torch.rand(1, 3, 8, 8), torch.randn(1, 48, 8, 8)
    torch.testing.assert_close(again.sample(lr, eps), student.sample(lr, eps), atol=1e-2, rtol=1e-2)


def test_a_full_disk_is_an_error_of_the_system(student, tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("tddsr.weights.file.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(student, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_average_is_between_its_models_and_keeps_where_they_come_from(student, tmp_path):
    first, second, mean = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "mean"))
    save_model(student, first, notes='{"step": 3, "from": "ResShift, non-commercial"}')
    shifted = load_model(first)
    for weight in shifted.network.parameters():
        weight.data += 1
    save_model(shifted, second, notes='{"step": 5}')

    average, notes = average_models([first, second])
    save_model(average, mean, notes=notes)
    found, start = load_model(mean).network.state_dict(), student.network.state_dict()
    for name, weight in found.items():
        torch.testing.assert_close(weight, start[name] + 0.5)
    assert source_of(read_notes(mean)) == "ResShift, non-commercial"
    assert fingerprint(second) in read_notes(mean)


def test_only_models_of_one_kind_have_an_average(student, teacher, tmp_path):
    for name, model in (("student", student), ("teacher", teacher)):
        save_model(model, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"teacher\.safetensors is another model"):
        average_models([tmp_path / "student.safetensors", tmp_path / "teacher.safetensors"])


def test_models_of_two_latent_spaces_have_no_average(tmp_path):
    model = small_paper_model("student")
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "other")]
    save_model(model, files[0])
    assert model.shares_space(load_model(files[0]))
    next(model.space.parameters()).data += 1
    save_model(model, files[1])
    with pytest.raises(ModelError, match="another latent space"):
        average_models(files)


def test_unknown_names_say_which_are_known():
    with pytest.raises(ModelError, match="compact"):
        load_model("no-such-model")


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_files_that_are_not_models_are_refused_and_never_run(student, tmp_path):
    path = tmp_path / "a.safetensors"
    save_model(student, path)
    weights = load_file(path)
    for content in (b"", b"text", pickle.dumps(Evil()), path.read_bytes()[:1000]):
        bad = tmp_path / "bad.safetensors"
        bad.write_bytes(content)
        with pytest.raises(ModelError, match="not a readable"):
            load_model(bad)
    save_file(weights, tmp_path / "foreign.safetensors")
    with pytest.raises(ModelError, match="not written by tddsr"):
        load_model(tmp_path / "foreign.safetensors")


def test_weights_that_do_not_fit_are_refused(student, tmp_path):
    path = tmp_path / "a.safetensors"
    save_model(student, path)
    weights = load_file(path)
    header = {"format": "tddsr-model-1", "config": student.config.model_dump_json()}
    del weights["stem_lr.weight"]
    save_file(weights, path, metadata=header)
    with pytest.raises(ModelError, match=r"stem_lr\.weight"):
        load_model(path)
    save_file(weights, path, metadata={**header, "config": '{"role": "student", "colour": 1}'})
    with pytest.raises(ModelError, match="colour"):
        load_model(path)


def test_a_learned_latent_space_is_in_the_file(tmp_path):
    model = small_paper_model()
    save_model(model, tmp_path / "a.safetensors")
    again = load_model(tmp_path / "a.safetensors")
    assert again.config == model.config
    assert again.schedule.sqrt_eta.device.type == "cpu"
    lr, eps = torch.rand(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    assert torch.equal(again.sample(lr, eps, steps=2), model.sample(lr, eps, steps=2))
    save_model(model, tmp_path / "half.safetensors", torch.float16)
    half = load_model(tmp_path / "half.safetensors")
    for name, buffer in model.named_buffers():
        assert torch.equal(half.get_buffer(name), buffer)


def test_a_compact_network_works_in_pixels_only():
    with pytest.raises(ValidationError, match="works in 'pixels'"):
        ModelConfig.model_validate({"role": "teacher", "space": {"kind": "vq"}})


def test_a_models_fingerprint_is_of_its_content(teacher, student, tmp_path):
    for name, model in (("a", teacher), ("b", teacher), ("c", student)):
        save_model(model, tmp_path / f"{name}.safetensors", notes=name)
    a, b, c = (fingerprint(tmp_path / f"{name}.safetensors") for name in "abc")
    assert a == b != c
    changed = teacher.network.get_submodule("head").get_parameter("bias")
    changed.add_(1e-3)
    save_model(teacher, tmp_path / "d.safetensors")
    assert fingerprint(tmp_path / "d.safetensors") != a


@pytest.mark.parametrize("part", ["network", "space", "schedule"])
def test_parts_of_no_known_kind_are_named(part):
    with pytest.raises(ValidationError, match=part):
        ModelConfig.model_validate({"role": "teacher", part: "vq"})
