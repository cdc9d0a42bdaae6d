"""Whatever goes wrong under a notebook is named, and stops neither the others nor the next run."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from pool_workers import workers
from test_workbook import alive, enter, run, wait_for, write

from normkit import records
from normkit.workbook import Folders

SMOKE = ("--profile", "smoke")
ONLY_PROFILE = 'profile = "quick"\n'
PID = "import os\nfrom pathlib import Path\nPath('pids').open('a').write(f'{os.getpid()}\\n')\n"
MENDED = "from pathlib import Path\nmended = Path('mended').exists()\n"
ORPHAN = "import signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(600)"
HUNG = "import time\ntime.sleep(600)"
SWEEP = f"""import psutil, threading, time
from normkit import sweep
from normkit.records import Store
from normkit.training import TrainConfig
store = Store()
run = TrainConfig(epochs=50, subset=32, width=4, norms=(), final_norms=())

{inspect.getsource(workers)}
def kill_the_worker():
    while not list(store.root.glob(".unfinished/*.lock")):
        time.sleep(0.01)
    [worker] = workers()
    worker.kill()

with sweep.process_pool(1) as pool:
    threading.Thread(target=kill_the_worker).start()
    try:
        sweep.run([run], store=store, executor=pool, progress=False)
    except sweep.SweepError as error:
        died = error
"""
AGAIN = """assert not store.keys()
sweep.run([run], store=store, progress=False)
raise died
"""
FILL = """import os
for name in ("FIGURES", "RUNS"):
    try:
        with open(os.path.join(os.environ[f"NORMKIT_{name}"], "ballast"), "wb") as file:
            while not mended:
                file.write(bytes(1 << 16))
                file.flush()
    except OSError as error:
        full = error
if not mended:
    raise full
"""
OFFLINE = """import errno, socket
try:
    socket.create_connection(("127.0.0.1", 9), timeout=5)
except OSError as error:
    assert error.errno == errno.ENETUNREACH, error
else:
    raise AssertionError("there is a network")
"""
LOCKED = """import sys
from normkit.workbook import Folders
with Folders().turn("smoke", "alpha", print):
    print("mine", flush=True)
    sys.stdin.read()
"""


def place(folder, **notebooks):
    for name, sources in notebooks.items():
        write(folder, name, *sources, parameters=ONLY_PROFILE)


def states(out):
    """Notebook -> its state in the closing table, and the reason beside it."""
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines() if line[:1].isdigit()]
    return {row[0]: (row[1], row[2]) for row in rows}


@pytest.fixture
def project(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def small():
    """Gives folders that are file systems of 4 MiB each, under short names."""
    if os.name == "nt" or not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folders = []

    def mount(options="size=4m"):
        folders.append(Path(tempfile.mkdtemp(prefix="nk-small-", dir="/tmp")))
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folders[-1]]
        if subprocess.run(words, capture_output=True).returncode != 0:
            pytest.skip("mounting is not allowed here")
        return folders[-1]

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", folder], capture_output=True)
        folder.rmdir()


def test_each_fault_is_named_and_the_others_run(project):
    place(project, **{"01_orphan": [PID, ORPHAN], "02_hung": [PID, HUNG], "03_good": [PID]})
    code, out, err = run(*SMOKE, "--timeout", "1")
    found = states(out)
    assert code == 1
    assert [state for state, _ in found.values()] == ["failed", "failed", "ran"], err
    assert found["01_orphan"][1] == "its process was killed (SIGKILL)"
    assert found["02_hung"][1] == "cell step-1: it took longer than 1 s"
    kernels = [int(line) for line in (project / "notebooks/pids").read_text().split()]
    assert len(kernels) == 3
    wait_for(lambda: not any(map(alive, kernels)), 20)
    for copy in (project / "runs/workbook/smoke").glob("*.ipynb"):
        assert nbformat.read(copy, 4).cells
    _, out, _ = run(*SMOKE, "--list")
    assert [state for state, _ in states(out).values()] == ["would run"] * 2 + ["up to date"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """What a run said whose sweep lost a worker, and whether it was cut off from any network."""
    folder = tmp_path_factory.mktemp("swept")
    alone = ["unshare", "--map-root-user", "--net"]
    isolated = bool(shutil.which("unshare")) and subprocess.run([*alone, "true"]).returncode == 0
    words = [*(alone if isolated else ()), sys.executable, "-m", "normkit", "run", *SMOKE]
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        records.replace(folder / "figures/smoke/claims.csv", "verdict\n")
        (folder / "figures/smoke/claims.md").touch()  # a scoreboard, as after an earlier run
        (folder / "runs/workbook/smoke").mkdir(parents=True)
        place(folder, **{"01_sweep": [OFFLINE if isolated else "", SWEEP, AGAIN]})
        result = subprocess.run(words, capture_output=True, text=True)
    return result, records.Store(folder / "runs"), isolated


def test_a_killed_worker_is_named_and_the_next_sweep_does_what_is_left(swept):
    result, store, _ = swept
    died = "cell step-2: SweepError: 1 of 1 runs failed, finished ones are kept; the first: its "
    died += "process died (out of memory, or killed)"
    assert result.returncode == 1
    assert states(result.stdout)["01_sweep"][1].startswith(died), result.stderr
    assert (store.verify().status == "ok").sum() == 1


def test_a_sweep_in_a_notebook_needs_no_network(swept):
    result, store, isolated = swept
    if not isolated:
        pytest.skip("needs unshare, and the right to make a network of one's own")
    assert "cell step-2: SweepError" in result.stdout, result.stderr
    assert len(store.keys()) == 1


def test_a_kernel_that_never_starts_is_named(project, monkeypatch):
    place(project, **{"01_alpha": [PID]})
    spec = project / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/nowhere/python"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(project))
    code, out, _ = run(*SMOKE)
    state, why = states(out)["01_alpha"]
    assert code == 1 and state == "failed"
    assert why.startswith("before the first cell: FileNotFoundError") and "/nowhere/python" in why


def test_full_disks_are_named_and_the_next_run_does_what_is_left(project, small, monkeypatch):
    places = {"FIGURES": small(), "RUNS": small()}
    for name, folder in places.items():
        monkeypatch.setenv(f"NORMKIT_{name}", str(folder))
    place(project, **{"01_fill": [MENDED, FILL]})
    code, out, err = run(*SMOKE)
    why = states(out)["01_fill"][1]
    assert code == 1 and f"{places['FIGURES'] / 'smoke/claims.csv'} not written: No space" in err
    assert why.startswith("cell step-1: OSError: [Errno 28] No space left on device; "), why
    for folder in places.values():
        assert re.search(f"{folder}\\S* cannot be written .No space left on device.", why), why
        (folder / "ballast").unlink()
        assert not [path for path in folder.rglob(".*") if path.is_file()], "a torn file"
    (project / "notebooks/mended").touch()
    code, out, err = run(*SMOKE)
    assert code == 0 and states(out)["01_fill"][0] == "ran", err


@pytest.mark.parametrize("variable", ["NORMKIT_FIGURES", "NORMKIT_RUNS"])
def test_a_read_only_folder_is_named_before_any_work(project, small, monkeypatch, variable):
    place(project, **{"01_alpha": [PID]})
    folder = small("ro,size=64k")
    monkeypatch.setenv(variable, str(folder))
    code, out, err = run(*SMOKE)
    assert code == 1 and not out and err.count("\n") == 1
    assert str(folder) in err and "Read-only file system" in err and variable in err


def test_a_file_that_finds_no_room_is_named_and_leaves_what_was_there(small):
    folder = small("size=64k")
    records.replace(folder / "x", b"before")
    with pytest.raises(OSError, match=f"No space left on device: '{folder / 'x'}'"):
        records.replace(folder / "x", bytes(1 << 17))
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("x", b"before")]


def test_threads_that_write_one_file_leave_one_whole_file(tmp_path):
    contents = [bytes([i]) * (1 << 16) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: records.replace(tmp_path / "x", content), contents * 20))
    assert (tmp_path / "x").read_bytes() in contents and len(list(tmp_path.iterdir())) == 1


def test_two_runs_at_once_execute_a_notebook_once(project):
    hold = "import time\nwhile not Path('go').exists():\n    time.sleep(0.05)"
    place(project, **{"01_alpha": [PID, hold]})
    words = [sys.executable, "-m", "normkit", "run", *SMOKE]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **told) as first, subprocess.Popen(words, **told) as second:
        lines = {process: process.stderr.readline() for process in (first, second)}
        waits = "waiting for another run of it"
        alone, other = sorted(lines, key=lambda process: waits in lines[process])
        assert [waits in lines[process] for process in (alone, other)] == [False, True], lines
        (project / "notebooks/go").touch()
        ends = {process: process.communicate(timeout=60) for process in lines}
    assert alone.returncode == other.returncode == 0, ends
    assert states(ends[alone][0])["01_alpha"][0] == "ran"
    assert states(ends[other][0])["01_alpha"] == ("up to date", "nothing it depends on changed")
    assert len((project / "notebooks/pids").read_text().split()) == 1
    kept = sorted(path.name for path in (project / "runs/workbook").rglob("*"))
    assert kept == ["01_alpha.ipynb", "01_alpha.json", "smoke"]
    figures = sorted(path.name for path in (project / "figures/smoke").iterdir())
    assert figures == ["claims.csv", "claims.md"]


def test_a_run_that_is_killed_gives_its_turn_to_the_one_that_waits(project):
    told = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", LOCKED], **told) as holder:
        assert holder.stdout.readline() == "mine\n"
        with Folders().turn("smoke", "alpha", holder.kill):
            assert holder.wait(20) == -9
    assert not list((project / "runs/workbook").iterdir())
