"""JupyterLab on this machine, and a Chromium without a window that drives it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

RUN_ALL = """async () => {
    const widget = window.jupyterapp.shell.currentWidget;
    await widget.context.ready;
    await widget.sessionContext.ready;
    await widget.sessionContext.session.kernel.info;
    await window.jupyterapp.commands.execute("notebook:run-all-cells");
    return widget.content.widgets.map(cell => cell.model).filter(m => m.type === "code").map(m => ({
        id: m.id, count: m.executionCount,
        error: m.outputs.toJSON().filter(o => o.output_type === "error").map(o => o.evalue)[0],
    }));
}"""
READY = "() => window.jupyterapp?.shell?.currentWidget?.sessionContext !== undefined"
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false"},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str:
    """The path of a Chromium, or a skipped test that says what is missing."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on the path; on Debian: apt-get install chromium")
    return path


@contextlib.contextmanager
def server(folder: Path, notebooks: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a JupyterLab over `notebooks`, which keeps all it writes in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    own = {f"JUPYTER_{name}": str(folder / name.lower()) for name in places}
    own |= {f"JUPYTERLAB_{n}_DIR": str(folder / n.lower()) for n in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(folder / "ipython")}
    for name, values in SETTINGS.items():
        path = folder / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.root_dir={notebooks}", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password="]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | own | environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process, folder / "server.log")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), urlopen(f"{address}/api", timeout=2):
            return
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@contextlib.contextmanager
def page(folder: Path, address: str):
    """A page of the browser; `.complaints` holds console errors and requests off the server."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        context = play.chromium.launch_persistent_context(
            str(folder), executable_path=chromium(), headless=True, args=FLAGS,
            viewport={"width": 1200, "height": 1100},
        )  # fmt: skip
        opened = context.pages[0]
        complaints = []
        local = (address, address.replace("http", "ws", 1), "data:", "blob:", "about:")
        opened.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
        opened.on(
            "console",
            lambda said: said.type == "error" and complaints.append(f"console: {said.text}"),
        )
        opened.on(
            "request",
            lambda asked: asked.url.startswith(local) or complaints.append(f"asked {asked.url}"),
        )
        try:
            yield opened, complaints
        finally:
            context.close()


def run_all(opened, address: str, notebook: str) -> list[dict]:
    """Open a notebook and run all its cells; id, count and error of each code cell."""
    opened.goto(f"{address}/lab/tree/{notebook}?reset")
    opened.wait_for_function(READY, timeout=60_000)
    return opened.evaluate(RUN_ALL)
