"""Networks come from five sources into a session; what cannot be had is said in one sentence."""

import contextlib
import dataclasses
import hashlib
import html
import re
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from normkit import attacks, data, models, networks, training
from normkit.records import Store
from normkit.records.tensors import read_tensors
from normkit.widgets import Network, Session
from normkit.widgets.carry import CARRIED, CONFIGS, carried, packed
from normkit.widgets.live import evaluating, network_of
from normkit.widgets.picker import Picker
from normkit.widgets.session import layers_of
from normkit.widgets.sources import carried_file, measured, method, runs

SMALL = training.TrainConfig(epochs=1, subset=64, width=4, norms=(), final_norms=())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Runs of two methods, one of them without weights."""
    made = Store(tmp_path_factory.mktemp("runs"))
    free = dataclasses.replace(SMALL, adversary=training.Adversary("free"), seed=7)
    for config in (
        SMALL,
        dataclasses.replace(SMALL, seed=1),
        dataclasses.replace(SMALL, seed=1, lr=0.05),
        free,
        dataclasses.replace(SMALL, epochs=0, seed=3),
    ):
        training.train(config).save(made)
    return made


@pytest.fixture
def here(store, monkeypatch):
    monkeypatch.setenv("NORMKIT_RUNS", str(store.root))
    return store


@pytest.fixture
def picker():
    made = Picker(Session())
    made.wait()
    return made


def said(slot):
    return html.unescape(re.sub("<[^>]*>", "", slot.state.value))


def choose(slot, **values):
    for name, value in values.items():
        slot.controls[name].value = value
        slot.wait()
    return said(slot)


def failed(slot):
    return 'role="alert"' in slot.state.value


@pytest.mark.parametrize("name", CARRIED)
def test_a_carried_network_is_as_accurate_as_it_says(name):
    network = carried(name)
    source = training.dataset("digits")
    images = data.to_float(source.test_images)
    clean = attacks.robust_accuracy(network.model, images, source.test_labels)
    assert f"accuracy {clean:.3f}" in measured(name).words and clean > 0.96
    evaluation = CONFIGS[name].evaluation
    found = training.robust_accuracy(
        network.model, source.test_images, source.test_labels, evaluation
    )
    assert f"{found:.3f} under PGD-20 at 0.15" in measured(name).words
    assert (found > 0.5) == (name == "pgd"), found
    assert (network.input_size, network.num_classes, network.dataset) == ((1, 8, 8), 10, "digits")


def test_carried_files_are_small_and_hold_the_configurations_of_the_script():
    sizes = [carried_file(name).stat().st_size for name in CARRIED]
    assert sum(sizes) < 400_000, sizes
    for name in CARRIED:
        _, note = read_tensors(carried_file(name))
        assert training.from_dict(note["config"]) == CONFIGS[name], name


def test_a_packed_run_is_the_same_bytes_when_trained_again_and_opens_as_a_checkpoint(tmp_path):
    first, second = (packed(training.train(SMALL)) for _ in range(2))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    (tmp_path / "run.safetensors").write_bytes(first)
    found = networks.load_file(tmp_path / "run.safetensors")
    assert torch.equal(found.model.head.weight, training.train(SMALL).model.head.weight)


def test_another_name_is_not_carried():
    with pytest.raises(ValueError, match="no net 'mine' is carried; accepted: plain, pgd"):
        carried("mine")


def test_network_and_layer_arrive_together(picker):
    session, seen = picker.session, []
    session.observe(lambda _: seen.append(session.layer in layers_of(session.first)), ["first"])
    choose(picker.first, source="classifier")
    choose(picker.first, source="carried", carried="enorm")
    assert seen and all(seen)
    assert session.first.name == "ENorm"
    assert session.layer == "stem.convolution"


def test_every_carried_network_can_be_chosen_for_either_place(picker):
    for slot in (picker.first, picker.second):
        choose(slot, source="carried")
        for name in CARRIED:
            words = choose(slot, carried=name)
            assert getattr(picker.session, slot.trait).name == carried(name).name
            assert measured(name).words in words and "parameters, input 1 x 8 x 8" in words
    choose(picker.second, source="none")
    assert picker.session.second is None


def test_runs_are_found_by_method_data_set_and_seed(picker, here):
    slot = picker.first
    words = choose(slot, source="run")
    assert slot.controls["method"].options == ("BatchNorm", "BatchNorm, free AT")
    labels = [label for label, _ in slot.controls["run"].options]
    assert labels == ["seed 0, lr 0.1", "seed 1, lr 0.05", "seed 1, lr 0.1"]
    assert "accuracy 0." in words
    choose(slot, method="BatchNorm, free AT")
    assert [label for label, _ in slot.controls["run"].options] == ["seed 7"]
    key = slot.controls["run"].value
    shown = picker.session.first
    assert key in shown.name
    assert torch.equal(shown.model.head.weight, training.restore(here.open(key)).head.weight)


def test_runs_lists_what_kept_weights(store):
    found = runs(store)
    kept = [key for key in store.keys() if store.open(key).weights()]
    assert sorted(found.key) == kept and len(found) == 4


def test_an_empty_store_says_how_to_fill_it_and_can_be_looked_at_again(
    picker, store, tmp_path, monkeypatch
):
    monkeypatch.setenv("NORMKIT_RUNS", str(tmp_path / "none"))
    before = picker.session.first
    words = choose(picker.first, source="run")
    assert f"No run with weights lies in {tmp_path / 'none'}" in words
    assert "python -m normkit train" in words and not failed(picker.first)
    assert picker.session.first is before and picker.first.controls["run"].disabled
    monkeypatch.setenv("NORMKIT_RUNS", str(store.root))
    picker.first.controls["reload"].click()
    picker.wait()
    assert "record" in picker.session.first.name and not picker.first.controls["run"].disabled


def test_a_diverged_run_is_refused_by_the_name_of_its_layer(picker, tmp_path, monkeypatch):
    run = training.train(SMALL)
    run.model.blocks[0].convolution1.weight.data[0, 0, 0, 0] = torch.nan
    dataclasses.replace(run, status="diverged at step 3").save(Store(tmp_path))
    monkeypatch.setenv("NORMKIT_RUNS", str(tmp_path))
    before = picker.session.first
    words = choose(picker.first, source="run")
    assert failed(picker.first) and "blocks.0.convolution1" in words and "not finite" in words
    assert picker.first.controls["run"].options[0][0] == "seed 0 (diverged at step 3)"
    assert picker.session.first is before


def test_torchvision_comes_by_name_and_size_without_a_download(picker, monkeypatch):
    def refused(*args, **options):
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refused)
    words = choose(picker.first, source="classifier", classifier="squeezenet1_1")
    assert "squeezenet1_1 of torchvision, its weights random" in words
    assert picker.session.first.num_classes == 1000 and picker.session.layer == "features.0"
    words = choose(picker.first, classifier="alexnet")
    assert failed(picker.first) and "does not take float32 images of 3 x 32 x 32" in words
    assert picker.session.first.name.startswith("squeezenet1_1")
    words = choose(picker.first, classifier_size="3x64x64")
    assert not failed(picker.first) and "input 3 x 64 x 64" in words
    words = choose(picker.first, classifier_size="3,64")
    assert "input size is '3,64'; give C,H,W above zero, such as 3,32,32" in words


def test_a_state_dict_is_recognized_with_its_mean_and_size(picker, tmp_path):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)
    net = models.build("resnet8", width=4, num_classes=7, mean=mean, std=std).eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    choose(picker.first, source="file", path=str(tmp_path / "net.pt"))
    choose(picker.first, mean="0.5,0.4,0.3")
    assert failed(picker.first) and "mean and std must be given" in said(picker.first)
    words = choose(picker.first, std="0.2, 0.2, 0.1", size="3,16,16")
    shown, images = picker.session.first, torch.rand(2, 3, 16, 16)
    assert "input 3 x 16 x 16" in words and shown.num_classes == 7
    assert torch.equal(shown.model(images), net(images))


def test_a_classifier_of_torchvision_is_read_by_its_name_for_its_own_classes(picker, tmp_path):
    with warnings.catch_warnings(action="ignore"):
        net = networks._random("squeezenet1_1", 5)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    choose(picker.second, source="file", path=str(tmp_path / "net.safetensors"))
    assert failed(picker.second) and "is of no net that is known here" in said(picker.second)
    words = choose(picker.second, architecture="squeezenet1_1")
    shown, images = picker.session.second, torch.rand(1, 3, 32, 32)
    assert not failed(picker.second), words
    assert torch.equal(shown.model(images), net(images)) and shown.num_classes == 5
    words = choose(picker.second, architecture="resnet18")
    assert "is no resnet18 of torchvision: Missing key(s) in state_dict: \"conv1" in words


def write(folder, kind):
    path = folder / f"{kind}.pt"
    net = models.build("resnet8", width=4)
    if kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "pickle":
        torch.save(net, path)
    elif kind == "number":
        torch.save(3, path)
    elif kind == "extra":
        torch.save({**net.state_dict(), "another.weight": torch.zeros(2)}, path)
    elif kind == "strange":
        torch.save({"mine.weight": torch.zeros(2)}, path)
    elif kind == "nan":
        net.blocks[1].convolution2.weight.data.fill_(torch.nan)
        torch.save(net.state_dict(), path)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("nothing", "nothing.pt is not there; give a .safetensors file or a state dict"),
        ("folder", "folder.pt is a folder; give a .safetensors file"),
        ("text", "it is no checkpoint or damaged; give a .safetensors file"),
        ("pickle", "could run code from it; save its state dict with safetensors.torch.save_file"),
        ("number", "holds a int, not a state dict"),
        ("extra", "nearest is resnet8, but 1 names differ: another.weight is (2,), not absent"),
        ("strange", "fits no net; its first names are ['mine.weight']"),
        ("nan", "blocks.1.convolution2"),
    ],
)
def test_what_is_no_checkpoint_costs_one_sentence_and_no_network(picker, tmp_path, kind, sentence):
    before = picker.session.first, picker.session.layer
    choose(picker.first, source="file")
    assert not failed(picker.first) and "Type the path" in picker.first.state.value
    words = choose(picker.first, path=str(write(tmp_path, kind)))
    assert failed(picker.first) and sentence in words, words
    assert (picker.session.first, picker.session.layer) == before


def test_the_model_given_is_offered_and_comes_back():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))
    given = network_of(net)
    picker = Picker(Session(first=given, second=carried("pgd"), layer="0"))
    assert picker.first.controls["source"].value == "given"
    assert picker.second.controls["carried"].value == "pgd"
    assert "your model: 750 parameters, input 1 x 8 x 8" in picker.first.state.value
    choose(picker.first, source="carried")
    choose(picker.first, source="given")
    assert picker.session.first.model is net and picker.session.layer == "0"


def test_of_many_choices_the_last_one_is_there(picker):
    for name in CARRIED * 3:
        picker.first.controls["carried"].value = name
    picker.wait()
    assert picker.session.first.name == carried(CARRIED[-1]).name


class Counting(nn.Module):
    """Changes a buffer in every forward pass, in place and by a new one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, images):
        self.calls += 1
        self.last = self.last + 1
        return self.layer(images.flatten(1))


def test_a_live_model_is_wrapped_and_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout())
    net = nn.Sequential(net, Counting())
    net[1].layer = nn.Linear(4 * 36, 2)
    net[0][1].eval()
    modes = [part.training for part in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    last, state = net[1].last, torch.get_rng_state()
    found = network_of(net)
    assert found.model is net and found.num_classes == 2 and found.input_size == (1, 8, 8)
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net[1].last is last and torch.equal(torch.get_rng_state(), state)
    with contextlib.suppress(RuntimeError), evaluating(net):
        net(torch.zeros(1, 1, 3, 3))
    assert [part.training for part in net.modules()] == modes and net[1].calls == 0


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 3)), (1, 28, 28)),
        (nn.Conv2d(3, 2, 3), (3, 32, 32)),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)), (3, 8, 8)),
        (nn.Linear(64, 3), (64,)),
        (nn.Linear(7, 3), (7,)),
    ],
)
def test_the_input_size_is_guessed(model, size):
    assert network_of(model).input_size == size


def test_the_data_set_tells_the_input_size():
    found = network_of(nn.Conv2d(1, 2, 3), dataset="digits")
    assert (found.input_size, found.dataset) == ((1, 8, 8), "digits")


def spoiled():
    net = nn.Sequential(nn.Conv2d(1, 2, 3))
    net[0].bias.data[1] = torch.inf
    return net


@pytest.mark.parametrize(
    ("model", "size", "sentence"),
    [
        (nn.Conv2d(3, 2, 3), (1, 8, 8), "1 x 8 x 8 .its first layer wants 3 channels"),
        (nn.Conv2d(3, 2, 3), (3, 2, 2), "torch says: Calculated padded input size"),
        (nn.Conv2d(3, 2, 3), "3,8,8", r"input_size is '3,8,8'; it must be \(C, H, W\)"),
        (nn.Conv2d(3, 2, 3).double(), None, "takes none of 3 x 32 x 32.*give input_size=.*type"),
        (nn.ReLU(), None, "no layer tells its input"),
        (nn.LazyLinear(3), None, "weight is not initialized; run the model once first"),
        (nn.Linear(2, 2, device="meta"), None, "on meta.*give copy.deepcopy"),
        (spoiled(), None, "layer '0' of your model: its bias has 1 value that is not finite"),
    ],
)
def test_a_live_model_that_cannot_be_looked_at_costs_one_sentence(model, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        network_of(model, size)


@pytest.mark.parametrize(("model", "found"), [(nn.Linear, "a class, Linear"), ("net", "str")])
def test_what_is_no_module_is_refused(model, found):
    with pytest.raises(TypeError, match=f"your model is {found}; give an nn.Module"):
        network_of(model)


def test_a_method_is_told_by_what_differs_from_plain_training():
    decay = training.Penalty("norm_decay", norm="linf")
    bound = training.Projection("norms", bound=2.0, batch_norm=1.5)
    config = dataclasses.replace(SMALL, normalization="none", penalty=decay, projection=bound)
    words = method(dataclasses.asdict(config))
    assert words == "norm decay linf, linf norms at most 2, BatchNorm at most 1.5"
    assert method(dataclasses.asdict(CONFIGS["conv_norm"])) == "ConvNorm"
    assert method(dataclasses.asdict(CONFIGS["enorm"])) == "ENorm"


def test_a_network_without_a_known_layer_is_refused():
    net = Network("mine", nn.PReLU(), (1, 8, 8))
    picker = Picker(Session(first=net))
    choose(picker.first, source="carried")
    words = choose(picker.first, source="given")
    assert failed(picker.first) and "mine has no layer whose norm is known" in words
