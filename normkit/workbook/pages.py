"""An executed notebook as one file of HTML that needs no network and no server."""

import base64
import io
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode, from_dict
from PIL import Image

from ..records import replace
from ..records.files import read_json

__all__ = ["mathml", "page", "write"]

PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
WIDGET = "application/vnd.jupyter.widget-view+json"
NAMESPACE = "http://www.w3.org/1998/Math/MathML"  # a page of HTML needs no name for it
INJECTED = "injected-parameters"


def write(executed: Path, target: Path) -> Path:
    """Put the page of an executed notebook into a file.

    Raises:
        OSError: the notebook cannot be read or the page cannot be written.
        ValueError: what was executed is no notebook.
    """
    try:
        content = page(read_json(executed))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{executed} is not a notebook: {error!r}") from error
    replace(target, content)
    return target


def page(notebook: dict[str, Any]) -> str:
    """An executed notebook as HTML: pictures inside, formulas as MathML, no script.

    The page depends on sources and results alone: counters, times, progress and the state of
    widgets are left out; a widget that brought a picture is shown as that.

    Arguments:
        notebook: the content of the file, which stays as it is.

    Example:
        >>> cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": r"# A $\\beta$"}
        >>> found = page({"cells": [cell]})
        >>> "<math" in found, "<script" in found, "$" in found
        (True, False, False)
    """
    plain = _plain(notebook)
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        filters={"markdown2html": _html},
    )
    body, _ = exporter.from_notebook_node(plain)
    texts = (cell.source for cell in plain.cells if cell.cell_type == "markdown")
    title = next((line[2:] for t in texts for line in t.splitlines() if line[:2] == "# "), "")
    title = escape(re.sub("[$`*]", "", title))
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
    head += f"<title>{title}</title>\n<style>\n{style}</style>\n"
    lines = (line.rstrip() for line in body.splitlines())
    body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip())
    head = f'<!doctype html>\n<html lang="en">\n<head>\n{head}</head>\n'
    return f"{head}<body>\n{body}\n</body>\n</html>\n"


def mathml(formula: str, display: str = "inline") -> str:
    """A formula of LaTeX as MathML, which browsers draw by themselves.

    Arguments:
        formula: without dollar signs.
        display: "inline" or "block".

    Example:
        >>> mathml(r"\\lVert W \\rVert").count("<mo")
        2
    """
    return convert(formula.strip(), display=display).replace(f' xmlns="{NAMESPACE}"', "")


class _Renderer(IPythonRenderer):
    """Markdown as Jupyter shows it, with MathML where that waits for a script."""

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")

    def block_math(self, body: str) -> str:
        return _formula(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return _formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


def _formula(body: str, display: str) -> str:
    """MathML; what is no LaTeX stays as it was written."""
    try:
        return mathml(body, display)
    except Exception:  # its errors have no other class in common
        return f"<code>{escape(body)}</code>"


def _html(source: str) -> str:
    return MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)


def _plain(notebook: dict[str, Any]) -> NotebookNode:
    """A copy without all that two runs with the same results would not share."""
    cells = []
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        kept = {"id": INJECTED if INJECTED in tags else cell["id"], "metadata": {}}
        kept |= {"cell_type": cell["cell_type"], "source": "".join(cell["source"])}
        if cell["cell_type"] == "code":
            outputs = [_output(output, kept["id"]) for output in cell["outputs"]]
            kept |= {"execution_count": None, "outputs": [o for o in outputs if o]}
        cells.append(kept)
    language = {"name": "python", "pygments_lexer": "ipython3"}
    whole = {"cells": cells, "metadata": {"language_info": language}}
    return from_dict(whole | {"nbformat": 4, "nbformat_minor": 5})


def _output(output: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What a page shows of an output; None for progress, and for a widget that left no picture."""
    kind = output["output_type"]
    if kind == "stream":
        whole = {"output_type": kind, "name": output["name"], "text": "".join(output["text"])}
        return whole if output["name"] == "stdout" else None
    if kind == "error":
        return {name: output[name] for name in ("output_type", "ename", "evalue", "traceback")}
    data = {mime: _text(value) for mime, value in output["data"].items() if mime != WIDGET}
    if WIDGET in output["data"] and not any(mime in data for mime in PICTURES):
        return None
    if "image/png" in data:
        data["image/png"] = _small(data["image/png"])
    described = {"image/png": {"alt": name}}
    return {"output_type": "display_data", "data": data, "metadata": described}


def _text(value: Any) -> Any:
    return "".join(value) if isinstance(value, list) else value


def _small(picture: str) -> str:
    """A PNG in base64 with 256 colors: a third of the bytes, and drawings look the same."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        white = Image.new("RGBA", image.size, "white")
        whole = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    few = whole.quantize(256, dither=Image.Dither.NONE)
    small = io.BytesIO()
    few.save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()
