"""The explorer's images, its activations and its equivalence."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normkit import layers, models, training
from normkit.networks import Network
from normkit.projections import ENorm
from normkit.widgets.activations_panel import ActivationsPanel
from normkit.widgets.cache import weights_key
from normkit.widgets.equivalence_panel import EquivalencePanel
from normkit.widgets.images import test_images
from normkit.widgets.session import Session
from normkit.widgets.work import Dropped, Ticket


def _network(name="mine", seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = models.build("resnet8", width=4, in_channels=1, input_size=(8, 8), **options)
    return Network(name, model.eval(), (1, 8, 8), 10, "digits")


def _drive(panel, **values):
    """Move controls, and see what is shown then."""
    for name, value in values.items():
        panel.controls[name].value = value
    panel.refresh().result(60)
    assert "alert" not in panel.state.value, panel.state.value
    return panel.shown


def _complaint(panel):
    panel.refresh().result(60)
    assert 'role="alert"' in panel.state.value
    return panel.state.value


def _run(code, **names):
    """The names that a line of code leaves."""
    exec(code, names)
    return names


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 32, 32), (3, 17, 40), (4, 9, 5), (1, 30, 28)])
def test_any_size_gets_images(size):
    images, labels, words = test_images(Network("mine", nn.Flatten(), size), 6)
    assert images.shape == (6, *size) and images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1 and labels is None
    assert "6 " in words and "not known" in words
    again = test_images(Network("mine", nn.Flatten(), size), 6)[0]
    assert torch.equal(images, again)
    assert torch.equal(images[:4], test_images(Network("mine", nn.Flatten(), size), 4)[0])


def test_images_are_those_of_the_data_set_with_their_labels():
    images, labels, words = test_images(_network(), 20)
    digits = training.dataset("digits")
    assert torch.equal(images, digits.test_images[:20] / 255)
    assert torch.equal(labels, digits.test_labels[:20]) and "digits" in words
    other = _network()._replace(num_classes=4)
    assert test_images(other, 20)[1] is None
    assert len(test_images(_network(), 10**6)[0]) == len(digits.test_images)


def test_a_data_set_that_is_absent_is_not_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMKIT_DATA", str(tmp_path))
    network = Network("mine", nn.Flatten(), (3, 32, 32), 10, "cifar10")
    assert "cifar10 is not on this machine" in test_images(network, 2)[2]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size, count, said", [((64,), 4, "(C, H, W)"), ((1, 8, 8), 0, "count")])
def test_what_takes_no_images_is_refused(size, count, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        test_images(Network("mine", nn.Flatten(), size), count)


def test_activations_are_those_of_the_layers():
    network = _network()
    panel = ActivationsPanel(Session(first=network))
    shown = _drive(panel, measure="activation_variance", images=16)
    seen = {}
    model = copy.deepcopy(network.model)
    for name, part in model.named_modules():
        if isinstance(part, nn.ReLU):
            part.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.detach()}))
    model(test_images(network, 16)[0])
    expected = [x.double().var((0, 2, 3), correction=0).mean().item() for x in seen.values()]
    assert shown.table.layer.tolist() == list(seen)
    np.testing.assert_allclose(shown.table.value, expected, rtol=1e-4)  # float32
    assert f"{expected[0]:.3g} to {expected[-1]:.3g}" in shown.words
    assert [mark.name for mark in shown.marks] == list(seen)


@pytest.mark.parametrize("classes", [10, 4])
def test_gradients_are_of_the_labels_or_of_what_is_predicted(classes):
    network = _network(num_classes=classes)._replace(num_classes=classes)
    shown = _drive(ActivationsPanel(Session(first=network)), measure="gradient_norm", images=16)
    kept, model = [], copy.deepcopy(network.model)
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(lambda m, i, o: (o.retain_grad(), kept.append(o))[0])
    images, labels, _ = test_images(network, 16)
    outputs = model(images)
    assert (labels is None) == (classes == 4)
    F.cross_entropy(outputs, outputs.argmax(1) if labels is None else labels).backward()
    expected = [output.grad.double().norm().item() for output in kept]
    np.testing.assert_allclose(shown.table.value, expected, rtol=1e-4)  # float32


def test_looking_changes_nothing():
    network = _network()
    network.model.train()
    before, state = weights_key(network.model), torch.get_rng_state()
    _drive(ActivationsPanel(Session(first=network)), measure="gradient_norm")
    _drive(EquivalencePanel(Session(first=network)), cycles=2)
    assert weights_key(network.model) == before and network.model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in network.model.parameters())
    assert not any(part._forward_hooks for part in network.model.modules())


def test_two_networks_have_a_line_each():
    session = Session(first=_network("one"), second=_network("two", seed=1))
    panel = ActivationsPanel(session)
    shown = _drive(panel)
    assert shown.table.line.unique().tolist() == ["one", "two"]
    assert "(one)" in shown.words and "(two)" in shown.words
    alone = _drive(ActivationsPanel(Session(first=session.second))).table.value
    np.testing.assert_array_equal(shown.table.value[shown.table.line == "two"], alone)
    session.second = _network("one", seed=2)
    assert _drive(panel).table.line.unique().tolist() == ["one (first)", "one (second)"]


def test_the_batch_bounds_the_stable_rank():
    panel = ActivationsPanel(Session(first=_network()))
    few, many = (_drive(panel, images=count).table.value for count in (8, 64))
    assert few.max() <= 8 and not np.array_equal(few, many)


@pytest.mark.parametrize("groups, same", [(8, "instance"), (1, "layer")])
def test_groups_go_from_instance_norm_to_layer_norm(groups, same):
    panel = ActivationsPanel(Session(first=_network()))
    _drive(panel, source="initial", width=8, depth=6, images=16, groups=groups)
    ends = panel.shown.table.value
    other = _drive(panel, normalization=same).table
    now = other[other.method != ""].value
    np.testing.assert_allclose(ends, now, rtol=1e-4)  # float32
    assert panel.controls["groups"].disabled


def test_normalizations_seen_before_stay_in_gray():
    panel = ActivationsPanel(Session(first=_network()))
    _drive(panel, source="initial", width=8, depth=4, images=16, groups=1)
    for groups in (2, 4, 8, 4):
        _drive(panel, groups=groups)
    table = _drive(panel, normalization="batch").table
    lines = table.groupby("line", sort=False).method.first()
    assert lines.iloc[0] == "batch" and (lines.iloc[1:] == "").all()
    assert set(lines.index[1:]) == {f"GroupNorm, G = {g}" for g in (1, 2, 4, 8)}
    lines = _drive(panel, normalization="none").table.line.unique()
    assert len(lines) == 5 and "GroupNorm, G = 1" not in lines
    lines = _drive(panel, width=4).table.line.unique()
    assert panel.controls["groups"].value == 4 and "GroupNorm, G = 8" not in lines


@pytest.mark.parametrize("key", layers.NORMALIZATIONS)
def test_every_normalization_can_be_looked_at(key):
    panel = ActivationsPanel(Session(first=_network()))
    shown = _drive(panel, source="initial", width=4, depth=4, images=16, normalization=key)
    assert shown.table.position.tolist() == [1, 2, 3, 4]


def test_the_code_makes_the_table():
    network = _network()
    panel = ActivationsPanel(Session(first=network))
    shown = _drive(panel, images=16)
    table = _run(shown.code, model=network.model)["table"]
    np.testing.assert_array_equal(table.value, shown.table.value)
    shown = _drive(panel, source="initial", width=4, depth=4, measure="gradient_norm")
    table = _run(shown.code)["table"]
    np.testing.assert_array_equal(table.value[:4], shown.table.value)
    assert table.layer[:4].tolist() == shown.table.layer.tolist()


def test_a_mark_chooses_the_layer():
    for kind in (ActivationsPanel, EquivalencePanel):
        session = Session(first=_network())
        panel = kind(session)
        name = "blocks.0.convolution1"
        if kind is ActivationsPanel:
            panel.controls["measure"].value = "gradient_norm"
        panel.refresh().result(60)
        assert name in [mark.name for mark in panel.shown.marks]
        panel.picture.chosen = name
        assert session.layer == name


class _Functional(nn.Module):
    """A net whose activations are no modules."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.last(F.relu(self.first(x.flatten(1))))


class _Branching(_Functional):
    def forward(self, x):
        y = self.first(x.flatten(1))
        return self.last(-y if y.sum() > 0 else y)


def test_where_activations_are_no_modules_layers_are_measured():
    network = Network("mine", _Functional(), (1, 8, 8), 10, "digits")
    table = _drive(ActivationsPanel(Session(first=network))).table
    assert table.layer.tolist() == ["first", "last"]


@pytest.mark.parametrize("kind", [ActivationsPanel, EquivalencePanel])
def test_bad_networks_are_one_sentence(kind):
    broken = _network()
    broken.model.blocks[1].convolution1.weight.data[0, 0, 0, 0] = float("nan")
    words = _complaint(kind(Session(first=broken)))
    assert "blocks.1.convolution1" in words and "not finite" in words
    wrong = _network()._replace(input_size=(3, 8, 8))
    assert "does not take images of 3 x 8 x 8" in _complaint(kind(Session(first=wrong)))
    nothing = Network("empty", nn.Flatten(), (1, 8, 8))
    assert "empty" in _complaint(kind(Session(first=nothing)))


def test_what_cannot_be_traced_is_one_sentence():
    network = Network("odd", _Branching(), (1, 8, 8), 10, "digits")
    words = _complaint(EquivalencePanel(Session(first=network)))
    assert "does not balance odd" in words and "trace" in words


def _norms(model, p):
    return {
        name: part.weight.detach().double().abs().pow(p).sum().item() ** (1 / p)
        for name, part in model.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    }


@pytest.mark.parametrize("p, c", [(2.0, 1.0), (1.0, 1.0), (2.0, 1.2)])
def test_cycles_are_those_of_enorm(p, c):
    network = _network(normalization=nn.Identity)
    shown = _drive(EquivalencePanel(Session(first=network)), cycles=3, p=p, c=c)
    twin = copy.deepcopy(network.model)
    enorm = ENorm(twin, p=p, c=c)
    energies = [enorm.energy()]
    for _ in range(3):
        enorm.step()
        energies.append(enorm.energy())
    table = shown.table.set_index(["measure", "cycle"])
    np.testing.assert_allclose(table.loc["energy"].value, energies, rtol=1e-12)
    for cycle, model in ((0, network.model), (3, twin)):
        found = table.loc[("norm", cycle)].set_index("layer").value.to_dict()
        assert found == pytest.approx(_norms(model, p), rel=1e-9)
    images = test_images(network, 16)[0]
    with torch.no_grad():
        before, after = network.model(images).double(), twin(images).double()
    share = ((after - before).abs().max() / before.abs().max()).item()
    assert table.loc[("relative difference", 3)].value.item() == pytest.approx(share)
    assert share < 1e-5, "float32 rounding"
    assert f"{share:.0e} of their largest" in shown.words
    assert _run(shown.code, model=network.model)["energy"] == pytest.approx(energies[-1])


def test_the_slider_moves_norms_and_not_outputs():
    panel = EquivalencePanel(Session(first=_network(normalization=nn.Identity)))
    far = _drive(panel, cycles=30).table
    near = _drive(panel, cycles=1)
    zero = _drive(panel, cycles=0)
    energy = far[far.measure == "energy"].value.to_numpy()
    assert (np.diff(energy) <= 1e-6 * energy[0]).all() and energy[-1] < 0.99 * energy[0]
    moved = near.table[near.table.measure == "norm"].groupby("layer").value.agg(np.ptp)
    assert moved.max() > 0.1
    assert near.words != zero.words and "Before the first cycle" in zero.words
    again = _drive(panel, cycles=30).table
    np.testing.assert_array_equal(far.value, again.value)
    assert _drive(EquivalencePanel(panel.session), cycles=1).words == near.words


def test_batch_norm_scales_move_with_their_units():
    shown = _drive(EquivalencePanel(Session(first=_network())), cycles=2)
    norms = shown.table[shown.table.measure == "norm"]
    assert set(norms.kind) == {"weight", "scale"}
    moved = norms.groupby(["kind", "layer"]).value.agg(np.ptp)
    assert moved["scale"].max() > 1e-3


def test_a_dropped_request_leaves_whole_cycles():
    panel = EquivalencePanel(Session(first=_network(normalization=nn.Identity)))
    said = []
    ticket = Ticket(lambda words: said.append(words) or (len(said) == 4 and ticket.drop()))
    with pytest.raises(Dropped):
        panel.compute(ticket, **panel.request() | {"cycles": 20})
    assert 1 < len(said) < 10
    whole = _drive(panel, cycles=20).table
    fresh = _drive(EquivalencePanel(panel.session), cycles=20).table
    np.testing.assert_array_equal(whole.value, fresh.value)
