"""Makes the networks that normkit carries: `python -m normkit.widgets.carry`, some minutes."""

import argparse
import dataclasses
import json
from pathlib import Path

from safetensors.torch import save

from normkit.records import replace
from normkit.training import Adversary, Evaluation, Projection, Run, TrainConfig, train

from .sources import CARRIED, carried, carried_file

__all__ = ["CARRIED", "CONFIGS", "carried", "main", "packed"]

EPSILON = 0.15
PLAIN = TrainConfig(
    epochs=30,
    evaluation=Evaluation(
        "pgd", epsilon=EPSILON, step_size=2.5 * EPSILON / 20, steps=20, clean_every=0
    ),
    norms=(),
    final_norms=(),
)
CONFIGS = {
    "plain": PLAIN,
    "pgd": dataclasses.replace(
        PLAIN, adversary=Adversary("pgd", epsilon=EPSILON, step_size=0.05, steps=5)
    ),
    "conv_norm": dataclasses.replace(PLAIN, convolution="conv_norm", normalization="none"),
    "enorm": dataclasses.replace(
        PLAIN,
        normalization="none",
        bias=True,
        lr=0.05,
        weight_decay=0.0,
        projection=Projection("enorm"),
    ),
}


def packed(run: Run) -> bytes:
    """A run's weights as a store writes them, the same bytes each time.

    *In plain words:* the header's entries are sorted, and no time stands in it.

    Example:
        >>> run = train(TrainConfig(epochs=1, subset=64, width=4, norms=(), final_norms=()))
        >>> packed(run) == packed(run)
        True
    """
    history = run.tables["history"].iloc[-1]
    meta = {
        "status": run.status,
        "seed": run.config.seed,
        "form": dataclasses.asdict(run.form),
        "accuracy": history.accuracy,
        "robust_accuracy": history.robust_accuracy,
    }
    note = {"config": dataclasses.asdict(run.config), "meta": meta}
    weights = {k: v.detach().contiguous() for k, v in run.model.state_dict().items()}
    data = save(weights, metadata={name: json.dumps(value) for name, value in note.items()})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def main(arguments: list[str] | None = None) -> None:
    """Train the networks, write their files and print how accurate they are."""
    parser = argparse.ArgumentParser(prog="python -m normkit.widgets.carry", description=__doc__)
    parser.add_argument("--folder", type=Path, default=carried_file("plain").parent)
    chosen = parser.parse_args(arguments)
    print(f"accuracy on the digits' 297 test images, clean and under PGD-20 at {EPSILON:g}")
    for name, config in CONFIGS.items():
        run = train(config)
        path = chosen.folder / carried_file(name).name
        replace(path, packed(run))
        last = run.tables["history"].iloc[-1]
        print(
            f"{name:10} {run.status}  {last.accuracy:.3f}  {last.robust_accuracy:.3f}  "
            f"{path.stat().st_size / 1000:.0f} kB"
        )


if __name__ == "__main__":
    main()
