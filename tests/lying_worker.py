"""Reads files that lie, a case for each seed, with little memory and time, and says how."""

import contextlib
import faulthandler
import json
import os
import random
import resource
import shutil
import sys
import warnings
from pathlib import Path

import torch
from lying import DataSet, Kind, State, Stored, Weights
from lying_tables import Cache, Executed, Notebooks, Scoreboard
from mutations import mutate

__all__ = ["MEMORY", "SECONDS", "Cases"]

MEMORY = 1 << 30  # bytes above what the imports take
SECONDS = 60  # for one case
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod")
STARTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")

KINDS: dict[str, Kind] = {
    "cifar10 binary": DataSet("cifar10", 0),
    "cifar10 python": DataSet("cifar10", 1),
    "cifar10 binary tar": DataSet("cifar10", 0, packed=True),
    "cifar10 python tar": DataSet("cifar10", 1, packed=True),
    "cifar100 binary": DataSet("cifar100", 0),
    "cifar100 python tar": DataSet("cifar100", 1, packed=True),
    "mnist idx": DataSet("mnist", 0),
    "record": Stored(),
    "safetensors": Weights(".safetensors"),
    "safetensors of a store": Weights(".safetensors", noted=True),
    "torch archive": Weights(".pt"),
    "torch legacy": Weights(".pth", legacy=True),
    "training checkpoint": State(),
    "notebook": Notebooks(),
    "executed state": Executed(),
    "data cache": Cache(),
    "scoreboard": Scoreboard(),
}


class Cases:
    """Sound files of every kind in a folder, and what each is read as."""

    def __init__(self, folder: Path):
        self.folder, self.root, self.trace = folder, folder / "case", folder / "executed"
        self.sound, self.watching, self.escapes = {}, False, []
        for name, kind in KINDS.items():
            self._restore(name, new=True)
            kind.make(self.root)
            shutil.copytree(self.root, folder / name)
            self.sound[name] = kind.read(self.root, random.Random(1))
        self.others = [p for name in KINDS for p in (folder / name).rglob("*") if p.is_file()]
        sys.addaudithook(self._watch)

    def case(self, seed: int) -> dict:
        """What becomes of one lie."""
        rng, name = random.Random(seed), list(KINDS)[seed % len(KINDS)]
        kind, told = KINDS[name], {"seed": seed, "kind": name}
        self._restore(name)
        target = rng.choice(sorted(path for path in self.root.rglob("*") if path.is_file()))
        told["file"] = str(target.relative_to(self.root))
        told["lie"] = mutate(target, rng, self.others, self.trace)
        exact = kind.seal(self.root, rng)
        self.escapes, self.watching = [], True
        try:
            found = kind.read(self.root, rng)
        except kind.raises as error:
            said = str(error)
            named = any(word in said for word in (target.name, str(self.root), "record "))
            outcome = "memory" if _memory(error) else "refused" if named else "unnamed"
            told |= {"outcome": outcome, "said": said[:300], "where": _place(error)}
        except Exception as error:
            told |= {"outcome": "exception", "said": f"{type(error).__name__}: {error}"[:300]}
            told["where"] = _place(error)
        else:
            right = found in (self.sound[name], "")
            told["outcome"] = "right" if right else "wrong" if exact else "as it says"
        self.watching = False
        if self.trace.exists():
            self.trace.unlink()
            told["outcome"] = "executed"
        return told | ({"outcome": "escaped", "said": self.escapes[:3]} if self.escapes else {})

    def _restore(self, name, new=False):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root)
        self.root.mkdir() if new else shutil.copytree(self.folder / name, self.root)

    def _watch(self, event, given):
        if not self.watching:
            return
        if event in STARTS:
            self.escapes.append(f"{event} {given}")
        written = event == "open" and isinstance(given[2], int) and given[2] & WRITING
        paths = [word for word in given if isinstance(word, str | bytes | Path)][:2]
        if written:
            paths = paths[:1]
        if written or event in CHANGES:
            outside = [p for p in paths if not os.fsdecode(p).startswith(str(self.root))]
            self.escapes += [f"{event} {path}" for path in outside if path != "/dev/null"]


def _memory(error):
    """Whether this error, or one that it comes from, is that no memory is left."""
    while error is not None:
        said = f"{type(error).__name__} {error}".lower()
        if any(word in said for word in ("memoryerror", "allocat", "cannot allocate", "malloc")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place(error):
    trace = error.__traceback__
    lines = []
    while trace:
        file = trace.tb_frame.f_code.co_filename
        if "normkit" in file or "tests" in file:
            lines.append(f"{Path(file).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return lines[-3:]


def _limit():
    """No more memory than there is now, and a bit."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _work(folder: Path, first: int, last: int) -> None:
    torch.set_num_threads(1)
    os.environ["NORMKIT_DATA"] = str(folder / "no data")
    os.environ["NORMKIT_RUNS"] = str(folder / "no runs")
    warnings.simplefilter("error")
    cases = Cases(folder)
    _limit()
    for seed in range(first, last):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(json.dumps(cases.case(seed)), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    _work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
