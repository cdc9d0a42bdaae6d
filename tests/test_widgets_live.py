"""A person's own module stays as it is under every panel, and what it is not is refused."""

import pytest
import torch
from torch import nn

from normkit import widgets
from normkit.widgets import Network, Session
from normkit.widgets.cache import weights_key
from normkit.widgets.layer_norms import shape_of, sizes_of
from normkit.widgets.layer_shown import VIEWS
from normkit.widgets.live import twin
from normkit.widgets.robustness_panel import RobustnessPanel


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        self.calls += 1
        return images


def net() -> nn.Sequential:
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    return nn.Sequential(
        conv, nn.BatchNorm2d(4), nn.ReLU(), Counting(), nn.Dropout(), nn.Flatten(),
        nn.Linear(144, 5),
    ).train()  # fmt: skip


@pytest.mark.parametrize("view", [*VIEWS, "network", "activations", "equivalence", "robustness"])
def test_a_network_in_training_is_left_as_it_was(view):
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [part.training for part in model.modules()], torch.get_rng_state()
    name = "layer" if view in VIEWS else view
    panel = widgets.explore(model, input_size=(3, 8, 8), panels=[name]).panel
    if name == "layer":
        panel.controls["view"].value = view
    panel.wait()
    assert panel.shown is not None, panel.state.value
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), view
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_in_training_is_attacked_as_it_is_evaluated():
    model = net()
    panel = RobustnessPanel(Session(first=Network("mine", model, (3, 8, 8), 5)))
    panel.refresh().result(60)
    training = panel.shown.table
    model.eval()
    other = RobustnessPanel(Session(first=Network("mine", model, (3, 8, 8), 5)))
    assert other.refresh().result(60).table.equals(training)


def test_the_same_weights_on_another_size_are_attacked_anew():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    panel = RobustnessPanel(Session(first=Network("mine", model, (1, 8, 8), 4)))
    panel.refresh().result(60)
    assert "8 x 8" in _note(panel)
    panel.session.first = Network("mine", model, (1, 12, 12), 4)
    panel.wait()
    assert "12 x 12" in _note(panel)


def _note(panel) -> str:
    return " ".join(text.get_text() for text in panel.shown.figure.texts)


def test_a_class_defined_anew_is_another_network():
    def defined(step: int) -> nn.Module:
        class Mine(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

            def forward(self, images):
                return self.two(self.one(images)[..., ::step])

        return Mine()

    first, second = defined(1), defined(2)
    second.load_state_dict(first.state_dict())
    assert weights_key(first) != weights_key(second)
    assert sizes_of(Network("mine", first, (1, 8, 8)))["two"] == (8, 8)
    assert sizes_of(Network("mine", second, (1, 8, 8)))["two"] == (8, 4)


def test_weights_that_a_forward_pass_made_are_copied():
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 4)), nn.BatchNorm1d(4))
    model(torch.rand(3, 6))
    copied = twin(model)
    assert torch.equal(copied[0].weight, model[0].weight) and not copied.training
    assert model[0].weight.grad_fn is not None and shape_of(model[0]) == "Linear 4x6"


@pytest.mark.parametrize("panel", ["network", "layer"])
def test_a_network_without_norms_is_one_sentence_in_every_view(panel):
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(64))
    made = widgets.explore(model, input_size=(1, 8, 8), panels=[panel]).panel
    for view in VIEWS if panel == "layer" else ():
        made.controls["view"].value = view
        assert made.wait() is None and "no layer with a linear map" in made.state.value
    assert made.wait() is None and "alert" in made.state.value


@pytest.mark.parametrize(
    ("model", "found"), [(nn.Linear, "a class, Linear"), (net().state_dict(), "OrderedDict")]
)
def test_what_is_no_network_is_refused_by_name(model, found):
    with pytest.raises(TypeError, match=f"your model is {found}; give an nn.Module"):
        widgets.explore(model)
