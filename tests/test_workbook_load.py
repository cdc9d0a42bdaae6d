"""Kernels that are started side by side all start."""

import os
from concurrent.futures import ThreadPoolExecutor

from test_workbook import enter, write

from normkit.workbook import notebook, process

KERNELS = int(os.environ.get("NORMKIT_KERNELS", "6"))
AT_A_TIME = 16


def test_kernels_started_side_by_side_all_run(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    write(tmp_path, "01_alpha", "x = 1", parameters='profile = "quick"\n')
    [book] = notebook.find(tmp_path)

    def start(number):
        return process.execute(
            book,
            {"profile": "smoke"},
            tmp_path / f"{number}.ipynb",
            environment={},
            limit=60,
            tick=lambda what: None,
        )

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        problems = list(pool.map(start, range(KERNELS)))
    assert problems == [None] * KERNELS, {p: problems.count(p) for p in problems}
