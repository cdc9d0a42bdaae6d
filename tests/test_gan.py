"""A generative run is a function of its configuration, is kept, and is found again."""

import dataclasses
import math
import threading
from concurrent.futures import Executor, Future

import numpy as np
import pytest
import torch
from torch import nn

from normkit import layers, sweep, training
from normkit.records import Store
from normkit.training import DISCRIMINATORS, Form, GanConfig

TINY = GanConfig(
    steps=5,
    evaluate_every=2,
    batch_size=16,
    width=4,
    generator_width=4,
    latent=8,
    score_images=50,
    classifier_width=4,
    classifier_epochs=1,
)
FORM = Form((1, 8, 8), 10)
KINDS = [dataclasses.replace(TINY, discriminator=kind) for kind in DISCRIMINATORS]
KINDS += [
    dataclasses.replace(TINY, discriminator=kind, batch_norm=True)
    for kind in ("conv_norm", "conv_norm_spectral")
]
KINDS.append(dataclasses.replace(TINY, discriminator="conv_norm_spectral", filter_norm=True))


@pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.discriminator} {c.batch_norm}")
def test_every_discriminator_gives_every_parameter_a_finite_gradient(config):
    model = training.build_gan(config, FORM)
    assert model.discriminator(torch.rand(3, 1, 8, 8)).shape == (3, 1)
    real, noise = torch.rand(6, 1, 8, 8), torch.randn(6, TINY.latent)
    for loss in ("hinge", "non_saturating"):
        critic, maker = training.gan_losses(loss)
        model.zero_grad()
        made = model(noise)
        critic(model.discriminator(real), model.discriminator(made.detach())).backward()
        found = dict(model.discriminator.named_parameters(prefix="discriminator"))
        maker(model.discriminator.requires_grad_(False)(made)).backward()
        model.discriminator.requires_grad_(True)
        found |= dict(model.generator.named_parameters(prefix="generator"))
        for name, parameter in found.items():
            gradient = parameter.grad
            assert gradient is not None and gradient.isfinite().all(), name
            # The hinge pulls the last bias by as much as it pushes it while no margin is kept.
            assert gradient.any() or loss == "hinge", name


@pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.discriminator} {c.batch_norm}")
def test_the_configuration_says_what_the_discriminator_is_normalized_by(config):
    judge = training.build_gan(config, FORM).discriminator
    kind, first = config.discriminator, judge.layers[0]
    spectral = "spectral" in kind
    for layer in (first.convolution, judge.head):
        spectrally = nn.utils.parametrize.is_parametrized(layer, "weight")
        assert spectrally == (spectral and kind != "conv_norm"), kind
    normalized = nn.utils.parametrize.is_parametrized(first.convolution, "filter")
    assert normalized == config.filter_norm
    assert isinstance(first.convolution, layers.ConvNorm2d) == kind.startswith("conv_norm")
    count = sum(isinstance(part, nn.BatchNorm2d) for part in judge.modules())
    assert count == 3 * (kind == "batch" or config.batch_norm)
    has_bias = first.convolution.bias is not None
    assert has_bias == (not count)


def test_a_normalized_filter_bounds_the_operator():
    torch.manual_seed(0)
    layer = training.spectral_conv_norm(3, 8, 3, padding=1, filter_norm=True).double().eval()
    nn.init.normal_(layer.parametrizations.filter.original, std=5.0)
    for _ in range(200):
        layer.train().filter  # noqa: B018  a power iteration
    columns = torch.eye(3 * 6 * 6, dtype=torch.float64).view(-1, 3, 6, 6)
    sigma = torch.linalg.matrix_norm(layer.eval()(columns).flatten(1), ord=2)
    assert sigma <= math.sqrt(8 * 9)


def test_the_generator_wants_what_the_discriminator_does_not():
    real, made = torch.tensor([0.5, -2.0]), torch.tensor([0.25, -3.0])
    critic, maker = training.gan_losses("hinge")
    assert math.isclose(critic(real, made), (0.5 + 3.0) / 2 + 1.25 / 2)
    assert math.isclose(maker(made), 2.75 / 2)
    critic, maker = training.gan_losses("non_saturating")
    p, q = real.sigmoid(), made.sigmoid()
    torch.testing.assert_close(critic(real, made), -p.log().mean() - (1 - q).log().mean())
    torch.testing.assert_close(maker(made), -q.log().mean())


def _same(first, second):
    pairs = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", ["spectral_norm", "conv_norm_spectral"])
def test_a_run_depends_on_its_configuration_alone(kind):
    config = dataclasses.replace(TINY, discriminator=kind, critic_steps=2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = training.train_gan(config)
    assert torch.equal(torch.rand(3), expected), "the caller's random numbers were drawn"
    training.scores._scorer.cache_clear()
    torch.set_num_threads(2)
    square = torch.ones(500, 500)
    noise = threading.Thread(target=lambda: [square @ square for _ in range(50)])
    noise.start()
    second = training.train_gan(config)
    noise.join()
    assert _same(first, second)
    assert first.tables["samples"].equals(second.tables["samples"])
    timeless = [run.tables["history"].drop(columns="seconds") for run in (first, second)]
    assert timeless[0].equals(timeless[1]) and first.limits == second.limits
    assert torch.get_num_threads() == 2, "the caller's threads are given back"
    assert not _same(first, training.train_gan(dataclasses.replace(config, seed=1)))


def test_methods_of_one_seed_see_the_same_start_batches_and_noise():
    still = {"lr_generator": 1e-12, "lr_discriminator": 1e-12}
    runs = [training.train_gan(dataclasses.replace(config, **still)) for config in KINDS[:2]]
    pairs = zip(*(run.model.generator.parameters() for run in runs), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
    a, b = (run.tables["samples"].value for run in runs)
    np.testing.assert_allclose(a, b, atol=1e-2)  # BatchNorm's statistics saw the same noise


def test_tables_are_tidy_and_the_last_step_is_always_scored():
    run = training.train_gan(TINY)
    history, samples = run.tables["history"], run.tables["samples"]
    assert history.step.tolist() == [0, 2, 4, 5]
    assert history.iloc[1:].notna().all(axis=None) and history.iloc[0][["frechet"]].notna().all()
    assert history[["d_loss", "g_loss"]].iloc[0].isna().all()
    places = ["index", "row", "column", "channel"]
    assert list(samples) == [*places, "value"] and not samples.duplicated(places).any()
    assert samples[places].nunique().tolist() == [100, 8, 8, 1]
    assert samples.value.between(0, 1).all()
    assert set(run.limits) == {"floor", "noise", "real_inception", "accuracy"}


def test_the_score_is_that_of_what_the_generator_makes():
    run, judge = training.train_gan(TINY), training.scorer(TINY.classifier())
    noise = torch.randn(50, TINY.latent, generator=training.generator(TINY.seed, "score"))
    with torch.no_grad():
        found = judge(run.model(noise))
    last = run.tables["history"].iloc[-1]
    assert found == {name: last[name] for name in ("frechet", "inception")}


def test_a_run_that_diverges_says_at_which_step():
    config = dataclasses.replace(TINY, discriminator="none", lr_discriminator=1e30, steps=20)
    run = training.train_gan(config)
    step = int(run.status.removeprefix("diverged at step "))
    history = run.tables["history"]
    assert 1 <= step <= 20 and history.step.max() < step <= history.step.max() + 2
    assert run.tables["samples"].empty and history.frechet.notna().all()


@pytest.mark.parametrize("kind", ["spectral_norm", "conv_norm_spectral"])
def test_a_sweep_trains_stores_and_finds_it(tmp_path, kind):
    store, config = Store(tmp_path), dataclasses.replace(TINY, discriminator=kind)
    plain = training.TrainConfig(epochs=1, subset=32, width=4, norms=(), final_norms=())
    first, other = sweep.run([config, plain], store=store, progress=False, executor=_Here())
    [again] = sweep.run([config], store=store, progress=False)
    assert again.key == first.key != other.key
    assert again.meta["seconds"] == first.meta["seconds"], "it was trained again"
    assert set(first.meta["limits"]) == set(training.scorer(config.classifier()).limits)
    run, restored = training.train_gan(config), training.restore_gan(first)
    assert first.table("samples").equals(run.tables["samples"])
    images, noise = torch.rand(4, 1, 8, 8), torch.randn(4, TINY.latent)
    with torch.no_grad():
        assert torch.equal(restored(noise), run.model(noise))
        assert torch.equal(restored.discriminator(images), run.model.discriminator(images))
    assert training.from_dict(first.config, GanConfig) == config


class _Here(Executor):
    """Runs what it is given at once, in this process."""

    def submit(self, work, *given):
        future = Future()
        future.set_result(work(*given))
        return future


def test_longer_and_slower_runs_cost_more():
    costs = [
        sweep.work(dataclasses.replace(TINY, **more))
        for more in ({}, {"steps": 10}, {"discriminator": "conv_norm"}, {"dataset": "cifar10"})
    ]
    assert costs[0] > 0 and costs[1] == costs[2] == 2 * costs[0]
    assert costs[0] < costs[3] < 16 * costs[0]  # 16 times the pixels, and as many updates


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"discriminator": "conv"}, "discriminator 'conv' is not known; nearest: 'conv_norm'"),
        ({"loss": "wasserstein"}, "loss 'wasserstein' is not known"),
        ({"steps": 0}, "steps is 0; it must be above 0 and finite"),
        ({"lr_generator": math.inf}, "lr_generator is inf"),
        ({"score_images": 1}, "score_images is 1; it must be at least 2"),
        ({"betas": (0.5,)}, r"betas is \(0.5,\); it must be two numbers"),
        ({"betas": (0.5, 1.0)}, "betas is .*1.0"),
        ({"batch_norm": True}, "option of conv_norm and conv_norm_spectral, and dis"),
        ({"discriminator": "conv_norm", "filter_norm": True}, "filter_norm is an option of conv_"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        GanConfig(**values)


def test_what_only_the_images_show_is_refused_before_training():
    with pytest.raises(TypeError, match=r"GanConfig.steps is 1.5; it must be int"):
        GanConfig(steps=1.5)
    with pytest.raises(ValueError, match="batch_size is 2000, and there are 1500 images"):
        training.train_gan(dataclasses.replace(TINY, batch_size=2000))
    with pytest.raises(ValueError, match="images of 9x9 pixels cannot be halved"):
        training.train_gan(dataclasses.replace(TINY, dataset="noisy_digits"))
