"""The panel of robustness shows what attacks do, by the networks' own numbers."""

import matplotlib.figure
import pytest
import torch
from torch import nn

from normkit import attacks
from normkit.widgets import Network, Session
from normkit.widgets.attacked import ATTACKS, attack_image, predictions
from normkit.widgets.images import test_images
from normkit.widgets.robustness_panel import RobustnessPanel

SIZE = (1, 8, 8)


def net(seed: int, name: str = "", size=SIZE, classes: int = 10) -> Network:
    torch.manual_seed(seed)
    pixels = size[0] * size[1] * size[2]
    layers = nn.Flatten(), nn.Linear(pixels, 32), nn.ReLU(), nn.Linear(32, classes)
    dataset = "digits" if size == SIZE else None
    return Network(name or f"net {seed}", nn.Sequential(*layers).eval(), size, classes, dataset)


@pytest.fixture
def panel():
    made = RobustnessPanel(Session(first=net(0), second=net(1)))
    assert made.refresh().result(60) is not None, made.state.value
    return made


def probabilities(shown, network, state):
    rows = shown.table[(shown.table.network == network.name) & (shown.table.state == state)]
    return torch.tensor(rows.sort_values("class").probability.to_numpy())


def test_what_fools_the_first_network_is_shown_to_both(panel):
    first, second = panel.session.first, panel.session.second
    images, labels, _ = test_images(first, 64)
    panel.controls["image"].value = 5
    panel.controls["attack"].value = "fgsm"
    panel.controls["epsilon"].value = 16 / 255
    shown = panel.wait()
    found = attacks.fgsm(first.model, images[5:6], labels[5:6], epsilon=16 / 255)
    for network in (first, second):
        expected = network.model(found)[0].softmax(0).detach()
        torch.testing.assert_close(probabilities(shown, network, "attacked"), expected)
        expected = network.model(images[5:6])[0].softmax(0).detach()
        torch.testing.assert_close(probabilities(shown, network, "clean"), expected)
    assert f"right class {labels[5]}" in shown.words and "16/255" in shown.words


def test_each_network_can_be_attacked_with_its_own_weights(panel):
    second = panel.session.second
    before = probabilities(panel.shown, second, "attacked")
    panel.controls["own"].value = True
    after = probabilities(panel.wait(), second, "attacked")
    label = int(panel.shown.words.split("right class ")[1].split(";")[0])
    assert after[label] < before[label], "its own attack is the stronger one"
    seen = predictions(panel.session.first, second, image=0, attack="pgd", epsilon=32 / 255,
                       own=True)  # fmt: skip
    assert list(seen.attacked) == ["net 0", "net 1"]


@pytest.mark.parametrize("attack", ATTACKS.values())
def test_no_pixel_changes_by_more_than_epsilon(attack):
    network = net(0)
    images, labels, _ = test_images(network, 1)
    found = attack_image(network.model, images, int(labels[0]), attack, 8 / 255)
    assert (found - images).abs().max() <= 8 / 255 + 1e-6
    assert 0 <= found.min() and found.max() <= 1
    same = attack_image(network.model, images, int(labels[0]), attack, 0.0)
    assert torch.equal(same, images)


def test_a_radius_of_zero_leaves_the_probabilities(panel):
    panel.controls["epsilon"].value = 0.0
    shown = panel.wait()
    clean, attacked = (probabilities(shown, panel.session.first, s) for s in ("clean", "attacked"))
    assert torch.equal(clean, attacked)


def test_the_line_of_code_gives_the_same_table(panel):
    scope = {"model": panel.session.first.model, "other": panel.session.second.model}
    exec(panel.shown.code, scope)
    assert scope["table"].equals(panel.shown.table)


def test_another_network_brings_its_own_radii(panel):
    panel.session.second = None
    panel.session.first = net(2, size=(3, 16, 16), classes=20)
    shown = panel.wait()
    labels = [text for text, _ in panel.controls["epsilon"].options]
    assert labels[:3] == ["0/255", "0.5/255", "1/255"]
    assert shown.table["class"].nunique() == 20
    assert "the right class is not known" in shown.words


def test_weights_that_change_are_attacked_anew(panel):
    before = panel.shown.table.probability.tolist()
    panel.session.first.model[1].weight.data.mul_(3)
    panel.refresh()
    assert panel.wait().table.probability.tolist() != before


def test_networks_that_cannot_be_compared_are_refused_in_one_sentence(panel):
    for other, said in (
        (net(3, size=(3, 8, 8)), "takes images of 3x8x8, and these are 1x8x8"),
        (net(3, classes=7), "other classes"),
    ):
        panel.session.second = other
        panel.wait()
        assert said in panel.state.value and 'role="alert"' in panel.state.value


def test_weights_that_are_no_numbers_are_named(panel):
    broken = net(4)
    broken.model[3].weight.data[0, 0] = float("nan")
    panel.session.first = broken
    panel.wait()
    assert "layer &#x27;3&#x27; of net 4" in panel.state.value


def test_a_network_without_classes_is_refused():
    flat = Network("features", nn.Flatten(0), SIZE)
    with pytest.raises(ValueError, match="no logits"):
        predictions(flat, image=0, attack="fgsm", epsilon=0.1)
    with pytest.raises(ValueError, match="from 0 on"):
        predictions(net(0), image=64, attack="fgsm", epsilon=0.1)
    with pytest.raises(ValueError, match="accepted are fgsm, pgd, apgd"):
        predictions(net(0), image=0, attack="foo", epsilon=0.1)


def test_an_attack_can_be_stopped():
    passes = []

    def check():
        passes.append(1)
        if len(passes) == 3:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        predictions(net(0), image=0, attack="pgd", epsilon=0.1, check=check)


def test_the_picture_is_a_figure_that_is_shown(panel):
    assert isinstance(panel.shown.figure, matplotlib.figure.Figure)
    assert panel.picture.png.startswith(b"\x89PNG") and panel.picture.alt == panel.shown.words
