"""What the notebooks that are to run still have to train, and about what that costs."""

from collections.abc import Sequence

from .folders import Folders
from .runner import Task

__all__ = ["forecast"]


def forecast(tasks: Sequence[Task], folders: Folders, processes: int | None = None) -> str:
    """Runs, those still to train, and about how many hours and bytes they take, by notebook.

    Nothing is trained or downloaded: a step of the largest net is timed, on this machine. Where
    nothing is to run there is no text.
    """
    tasks = [task for task in tasks if task.reasons]
    if not tasks:
        return ""
    from ..papers import is_here, planned
    from ..records import Store
    from ..sweep import estimate, jobs, measure
    from ..training import resolve_device

    store, wanted, missing = Store(folders.runs), {}, {}
    for task in tasks:
        given = task.notebook.defaults | task.parameters
        topic = task.notebook.topic
        wanted[topic] = dict.fromkeys(planned(topic, store=store, **given))
        missing[topic] = [c for c in wanted[topic] if not (is_here(c) and store.get(c))]
    every = dict.fromkeys(config for part in missing.values() for config in part)
    device = resolve_device(next((c.device for c in every), "cpu"))
    speed = measure(every, device)
    processes = (processes or jobs()) if device == "cpu" else 1
    rows = [(t, len(wanted[t]), estimate(missing[t], speed, processes)) for t in wanted]
    total = dict.fromkeys(config for part in wanted.values() for config in part)
    rows.append(("all together", len(total), estimate(every, speed, processes)))
    lines = [f"{'to train':<17}{'runs':>8}{'missing':>9}{'hours':>11}{'disk':>11}"]
    for topic, count, cost in rows:
        disk = f"{cost.bytes / 1e6:,.0f} MB"
        lines.append(f"{topic:<17}{count:>8,}{cost.runs:>9,}{cost.hours:>11,.2f}{disk:>11}")
    return "\n".join([*lines, f"hours: about, on {device}, from the time of a training step"])
