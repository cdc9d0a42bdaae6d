"""On a GPU every layer, probe and run gives what it gives on the CPU."""

import dataclasses

import pytest
import torch

from normkit import layers, models, probes
from normkit.projections import ENorm
from normkit.training import TrainConfig, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
FOUR = ("activation_variance", "cosine_similarity", "stable_rank", "gradient_norm")
METHODS = [(key, "conv") for key in layers.NORMALIZATIONS]
METHODS += [("none", key) for key in layers.CONVOLUTIONS if key != "conv"]


def net(normalization, convolution):
    torch.manual_seed(0)
    pair = layers.pair(normalization, convolution)
    between = {"normalization": pair.normalization, "activation": pair.activation}
    options = {"width": 8, "in_channels": 2, "input_size": (9, 8), "bias": True}
    return models.build("cfg_10", convolution=layers.convolution(convolution), **options, **between)


@pytest.mark.parametrize(("normalization", "convolution"), METHODS)
def test_a_step_and_its_probes_are_those_of_the_cpu(normalization, convolution):
    images = torch.randn(16, 2, 9, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for device in ("cpu", "cuda"):
        model = net(normalization, convolution).double().to(device)
        with probes.record(model, FOUR) as recording:
            model(images.double().to(device)).square().mean().backward()
        gradients = [p.grad.cpu() for p in model.parameters()]
        found.append((gradients, recording.table()))
    for a, b in zip(found[0][0], found[1][0], strict=True):
        # torch's weight normalization takes its norms in float32 on a GPU.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)
    cpu, gpu = (table.set_index(["layer", "measure"]).value for _, table in found)
    assert list(cpu.index) == list(gpu.index)
    torch.testing.assert_close(
        torch.tensor(gpu.values), torch.tensor(cpu.values), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("probe_on", ["fixed", "training"])
def test_a_run_on_a_gpu_is_about_that_on_the_cpu(probe_on):
    config = TrainConfig(
        subset=256, epochs=2, norms=(), final_norms=(), probes=FOUR, probe_every=2,
        probe_on=probe_on,
    )  # fmt: skip
    cpu = train(config).tables
    gpu = train(dataclasses.replace(config, device="cuda")).tables
    keys = ["step", "layer", "measure"]
    assert cpu["probes"][keys].equals(gpu["probes"][keys])
    start = [tables["probes"].query("step == 0").value.to_numpy() for tables in (cpu, gpu)]
    torch.testing.assert_close(*map(torch.tensor, start), rtol=1e-2, atol=1e-4)
    both = cpu["history"].merge(gpu["history"], on="epoch")
    assert (both.train_accuracy_x - both.train_accuracy_y).abs().max() < 0.1


@pytest.mark.parametrize("shortcut", ["conv1x1", "pad"])
def test_balancing_on_a_gpu_is_that_on_the_cpu(shortcut):
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = models.build("resnet8", width=4, normalization=torch.nn.Identity, shortcut=shortcut)
        model = model.double().to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        model(torch.ones(2, 3, 32, 32).double().to(device)).square().sum().backward()
        optimizer.step()
        enorm = ENorm(model, optimizer, cycles=2)
        enorm.step()
        buffers = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
        found.append([x.detach().cpu() for x in (*model.parameters(), *buffers)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)
