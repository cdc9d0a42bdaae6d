"""How fast the norms of layers are, against what others do. All ratios in one run.

    python benchmarks/norms.py [--only PART ...] [--quick] [--repetitions 1] [--limit 4]

Parts: `circular` (bracket to 1e-6 on the torus against FFT + SVD, Gram iteration and 500 steps of
the power method at every frequency; six shapes, and a ResNet-18), `zero` (as executed, against
the power method through the layer), `absolute` (l1 and linf), `trained` (layers of a trained
network), `table` (five norms of torchvision's resnet18). A power method that would take more than
`--limit` seconds is timed by a few of its steps, and has no value to compare.
"""

import argparse
import time

import pandas as pd
import torch
import torchvision

from normkit import norms
from normkit.papers.norm_decay import comparison, jobs, speed
from normkit.papers.measured import hardware, one_thread

TORUS = ("bracket", "fft_svd", "gram_iteration", "grid_power")
EXECUTED = ("davidson", "power_method")


def circular(layers: list[jobs.Job], chosen: argparse.Namespace) -> None:
    """Print ratios and errors on the torus."""
    times = speed.timed(layers, chosen.repetitions, chosen.patience, TORUS, limit=chosen.limit)
    found = {job.name: comparison.reference(job) for job in layers}
    middle = {name: (low + high) / 2 for name, (low, high, _) in found.items()}
    table = comparison.compare(times, "bracket").join(comparison.errors(times, middle))
    how = pd.Series({name: how for name, (*_, how) in found.items()}, name="error against")
    show(table.join(how))


def zero(layers: list[jobs.Job], chosen: argparse.Namespace) -> None:
    """Print ratios as executed; the errors are against the larger of the two lower bounds."""
    times = speed.timed(layers, chosen.repetitions, chosen.patience, EXECUTED, limit=chosen.limit)
    best = times.groupby("layer").value.max().to_dict()
    show(comparison.compare(times, "davidson").join(comparison.errors(times, best)))


def network(chosen: argparse.Namespace) -> None:
    """Print the seconds of a layer table, on all cores."""
    torch.manual_seed(0)
    model, size = torchvision.models.resnet18(weights=None), 32 if chosen.quick else 224
    start = time.perf_counter()
    table = norms.layer_table(model, (3, size, size), rtol=1e-3)
    seconds = time.perf_counter() - start
    rows = table[(table.norm == "spectral") & (table.kind == "conv")]
    width = (rows.upper / rows.lower - 1).median()
    print(
        f"{len(table)} rows, {(table.status != 'ok').sum()} failed, in {seconds:.2f} s;", end=" "
    )
    print(f"{hardware(torch.get_num_threads())}; median bracket of a convolution {width:.1%} wide")


def show(table: pd.DataFrame) -> None:
    """Print a table of times and ratios."""
    text = table.copy()
    for name in table:
        form = "{:.1e}" if name.startswith("error ") and name != "error against" else "{:.2f}"
        if pd.api.types.is_float_dtype(table[name]):
            text[name] = table[name].map(form.format)
    print(text.astype(object).replace("nan", "-").fillna("").to_string(), end="\n\n", flush=True)


def on_one_thread(part: str, chosen: argparse.Namespace) -> None:
    """Run and print one part."""
    size, divide = (8, 8) if chosen.quick else (32, 1)
    if part == "trained":
        epochs, width = (1, 8) if chosen.quick else (8, 64)
        layers = jobs.trained(size, width, epochs)
        sets = {f"layers of a network trained on digits, at {size}x{size}": layers}
    else:
        sets = {f"ResNet-18, {size}x{size} images": jobs.resnet(size, divide)}
    if part in ("circular", "zero"):
        sets = {f"six shapes at {size}x{size}": jobs.shapes(size, divide)} | sets
    for title, layers in sets.items():
        print(f"## {part}: {title}")
        if part == "absolute":
            show(comparison.absolute_totals(layers, chosen.patience))
        else:
            (zero if part == "zero" else circular)(layers, chosen)


def main(arguments: list[str] | None = None) -> None:
    """Run what the arguments ask for, by default those of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=__doc__.partition("\n\nParts: ")[2]
    )
    parts = ("circular", "zero", "absolute", "trained", "table")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts to run")
    parser.add_argument("--repetitions", type=int, default=1, help="rounds of every measurement")
    parser.add_argument("--patience", type=float, default=1.0, help="s to repeat a short call")
    parser.add_argument("--limit", type=float, default=4.0, help="s for a whole power method")
    parser.add_argument("--quick", action="store_true", help="narrow layers at 8x8, in seconds")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.patience, chosen.limit = min(chosen.patience, 0.01), min(chosen.limit, 0.05)
    print(f"{hardware(1)}; milliseconds, then times of others over ours\n", flush=True)
    for part in chosen.only:
        if part == "table":
            network(chosen)
            continue
        with one_thread(), torch.no_grad():
            if part == "trained":
                torch.set_grad_enabled(True)
            on_one_thread(part, chosen)


if __name__ == "__main__":
    main()
