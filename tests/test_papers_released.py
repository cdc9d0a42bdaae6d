"""The table from the papers' released code to normkit: every line of it runs as it stands."""

import ast
import contextlib
import functools
import io
import shlex
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from normkit import (
    attacks,
    data,
    layers,
    models,
    norms,
    papers,
    penalties,
    plots,
    probes,
    projections,
    records,
    sweep,
    training,
)
from normkit.__main__ import main
from normkit.papers.released import ADDRESSES

TABLE = papers.released()
LINES = TABLE[TABLE.here != ""]
SHELL = LINES.here.str.startswith(("python -m normkit ", "./run_all.sh "))
TINY = {"width": 4, "subset": 64, "epochs": 1}
MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(attacks, data, layers, models, norms, papers, penalties, plots, probes),
        *(projections, records, sweep, training, functools, torch, torchvision),
    )
}
REQUIRED = {
    "ConvNorm": """trainer.sym trainer.percent trainer.subset_percent trainer.adv_repeats
        trainer.lamb_ocnn pgd_attack.K conv_layer_type check_result.ipynb --percent""",
    "enorm": "ENorm(named_params --enorm --n-layers ENorm.step()",
    "norm_robustness": """bind_lip add_lip_grad calc_lip project_bn speed_test.py
        run_norm_regularization.sh run_adv_training.sh SVD_Conv_Tensor --clip-freq""",
    "BeyondBatchNorm": "--p_grouping --skipinit --lr_warmup --preact --norm_type=GroupNorm",
}
FAMILIES = {
    "label noise": "label_noise=",
    "a normalization": "normalization=group",
    "a convolution": "convolution=weight_norm",
    "ConvNorm": "convolution=conv_norm",
    "probes": "probes=",
    "norm decay": "penalty.kind=norm_decay",
    "OCNN": "penalty.kind=ocnn",
    "clipping": "projection.kind=singular_values",
    "ENorm": "projection.kind=enorm",
    "a bound on BatchNorm": "projection.batch_norm=",
    "free training": "adversary.kind=free",
    "PGD-AT": "adversary.kind=pgd",
    "TRADES": "adversary.kind=trades",
    "ALP": "adversary.kind=alp",
}


def named(rows):
    """A test's name: the row's repository and what it is called there."""
    return [f"{row.repository}: {row.there}" for row in rows.itertuples()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run in a store, and its weights in a file: what `run`, KEY and CHECKPOINT stand for."""
    folder = tmp_path_factory.mktemp("released")
    config = training.TrainConfig(**TINY)
    run = training.train(config)
    store = records.Store(folder / "records")
    checkpoint = folder / "weights.pt"
    torch.save(run.model.state_dict(), checkpoint)
    return SimpleNamespace(
        folder=folder, config=config, run=run, store=store, record=run.save(store),
        checkpoint=checkpoint,
    )  # fmt: skip


@pytest.fixture
def names(trained):
    """The names that a line of Python may use."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(40, 1, 8, 8, generator=generator), torch.arange(40) % 10
    model = models.build("resnet8", width=4, in_channels=1, input_size=(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    decayed = nn.Linear(4, 3)
    decayed(torch.rand(2, 4)).sum().backward()
    return MODULES | vars(trained) | {
        "nn": nn, "generator": generator, "images": images, "labels": labels,
        "conv": nn.Conv2d(2, 3, 3, padding=1), "model": model.eval(), "optimizer": optimizer,
        "decay": penalties.NormDecay(decayed, input_size=(4,)),
    }  # fmt: skip


@pytest.mark.parametrize("line", LINES.here[~SHELL], ids=named(LINES[~SHELL]))
def test_a_line_of_python_runs(line, names, capsys):
    exec(compile(line, "here", "exec"), names)


@pytest.mark.parametrize("line", LINES.here[SHELL], ids=named(LINES[SHELL]))
def test_a_command_runs(line, trained, monkeypatch):
    monkeypatch.setenv("NORMKIT_RUNS", str(trained.store.root))
    monkeypatch.setenv("NORMKIT_FIGURES", str(trained.folder / "figures"))
    meant = {"KEY": trained.record.key, "CHECKPOINT": str(trained.checkpoint)}
    words = [meant.get(word, word) for word in shlex.split(line)]
    if words[0] == "./run_all.sh":
        profile = [] if "--profile" in words else ["--profile", "smoke"]
        words = ["run", *words[1:], *profile, "--list"]
    else:
        words = words[3:]
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
    assert status == 0, told.getvalue()
    assert "diverged" not in told.getvalue()


def test_a_command_trains_for_each_family_of_methods():
    commands = LINES.here[LINES.here.str.startswith("python -m normkit train ")]
    for family, setting in FAMILIES.items():
        assert commands.str.contains(f" {setting}", regex=False).any(), family


def test_each_row_says_what_is_here_or_why_nothing_is():
    assert list(TABLE.columns) == ["repository", "there", "kind", "what", "here", "note"]
    assert set(TABLE.kind) == {"option", "key", "script", "function", "notebook"}
    assert set(TABLE.repository) == set(ADDRESSES) == set(REQUIRED)
    assert ((TABLE.here != "") | (TABLE.note != "")).all()
    assert (TABLE[["there", "what"]] != "").all(axis=None)
    assert not TABLE.duplicated(["repository", "there"]).any()


@pytest.mark.parametrize("repository", REQUIRED)
def test_what_users_look_for_is_there(repository):
    there = " ".join(TABLE.there[TABLE.repository == repository])
    for wanted in REQUIRED[repository].split():
        assert wanted in there, wanted


def settings(line):
    """The fields of a run that a line names: keywords of the configurations, or FIELD=VALUE."""
    if line.startswith("python -m normkit train "):
        return [word.partition("=")[0] for word in shlex.split(line) if "=" in word]
    parts = {"TrainConfig": "", "Adversary": "adversary.", "Penalty": "penalty."}
    parts |= {"Evaluation": "evaluation.", "Projection": "projection."}
    parts |= {"ConvolutionOptions": "convolution_options."}
    calls = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
    made = [call for call in calls if getattr(call.func, "attr", None) in parts]
    return [parts[call.func.attr] + word.arg for call in made for word in call.keywords]


def test_every_field_that_is_named_is_one_of_a_run():
    lines = LINES.here[~SHELL | LINES.here.str.startswith("python -m normkit train ")]
    found = {field for line in lines for field in settings(line)}
    parts = {"penalty", "projection", "adversary", "evaluation", "convolution_options"}
    assert len(found) > 60 and found - parts <= set(training.field_names())


def test_the_page_has_every_row():
    page = papers.released_markdown()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(TABLE)
    for line, row in zip(rows, TABLE.itertuples(), strict=True):
        assert line.count("|") == 5 and line.startswith(f"| `{row.there}` |"), line
        assert row.here in line and row.note in line, line
