"""The gallery and the pages: every file they name is there, and no page needs a network."""

import base64
import csv
import errno
import io
import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import normkit
from normkit import workbook
from normkit.claims import scoreboard
from normkit.papers import CLAIMS
from normkit.workbook import gallery, pages, state
from normkit.workbook.publish import publish
from normkit.workbook.notebook import find
from normkit.workbook.sections import home, sections

PROJECT = Path(normkit.__file__).parent.parent
SOURCES = sorted((PROJECT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in SOURCES]
IDS = {claim.id for claim in CLAIMS}
FORMULA = r"\$\$(.+?)\$\$|(?<![$\\])\$([^$]+?)\$"
SAVING = """folder = figures_root() / profile / "convnorm"
for net in nets:
    plots.save(figure, table, folder / f"noise_{net}", configuration="a")
"""
README = "# Title\n\n<!-- scoreboard -->\nold\n<!-- /scoreboard -->\n\nThe rest.\n"


def picture(width=40):
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, 20)).convert("RGBA").save(file, "png")
    return file.getvalue()


def source(path):
    cells = [
        new_markdown_cell("# Channels", id="title"),
        new_code_cell('profile = "quick"', id="parameters", metadata={"tags": ["parameters"]}),
        new_markdown_cell("## cn.noise: wrong labels", id="noise-claim"),
        new_code_cell(SAVING, id="fig-noise"),
        new_markdown_cell("```python\n# a comment\n```", id="aside"),
        new_code_cell('plots.save(figure, table, folder / "more")', id="fig-more"),
        new_markdown_cell("## cn.gan: a network", id="gan-claim"),
    ]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)


def executed(number=0):
    """An executed notebook; the number stands for all that differs between two executions."""
    when = {"papermill": {"duration": number, "start_time": f"2020-01-0{number + 1}"}}
    image = base64.b64encode(picture()).decode()
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": f"m{number}"}}
    outputs = [
        new_output("stream", name="stdout", text="six runs\n"),
        new_output("stream", name="stderr", text=f"progress {number}\n"),
        new_output("display_data", {"image/png": image, "text/plain": "Figure"}),
        new_output("display_data", widget | {"text/plain": f"slider {number}"}),
        new_output("display_data", {"text/markdown": r"**cn.noise** with $\ell_1$"}),
    ]
    cells = [
        new_markdown_cell("# Norms of $G$\n\nA sum $\\sum_k a_k * b_k$\n\n$$x^2$$", id="title"),
        new_code_cell("# Parameters", id=f"r{number}", metadata={"tags": ["injected-parameters"]}),
        new_code_cell("1 + 1", id="fig", metadata=when, outputs=outputs, execution_count=number),
    ]
    found = new_notebook(cells=cells, metadata={**when, "widgets": {"state": f"s{number}"}})
    return json.loads(nbformat.writes(found))


def verdicts(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(scoreboard.COLUMNS)
        table.writerows(rows)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one notebook, two profiles of figures, and a third that is not shown."""
    for variable in ("FIGURES", "RUNS", "DATA"):
        monkeypatch.delenv(f"NORMKIT_{variable}", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run_all.sh").touch()
    (tmp_path / "README.md").write_text(README)
    source(tmp_path / "notebooks" / "01_convnorm.ipynb")
    noise = ["cn.noise", "convnorm", "ConvNorm leads.", "contradicted", -0.25, -0.5, -0.125, 4]
    gan = ["cn.gan", "convnorm", "Scores rise.", "not run", "", "", "", 0]
    bare = ["cn.curves", "convnorm", "Curves rise.", "reproduced", 0.5, "", "", 3]
    for profile in ("quick", "cifar10", "smoke"):
        rows = [[*row, profile, ""] for row in (noise, gan, bare)]
        verdicts(tmp_path / "figures" / profile / "claims.csv", rows)
        (tmp_path / "figures" / profile / "claims.md").write_text("parts")
        for name in ("noise_vgg", "noise_resnet", "more", "loose", "noise_mlp"):
            file = tmp_path / "figures" / profile / "convnorm" / f"{name}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(picture())
            file.with_suffix(".pdf").write_bytes(b"pdf")
    return tmp_path


def close(project, state="ran", profile="quick"):
    """What `normkit run` does when its notebooks are through."""
    folders = workbook.Folders()
    [book] = find(project)
    outcomes = [workbook.Outcome(workbook.Task(book, profile, {}, ()), state, "")]
    return publish(outcomes, folders, profile)


def keep(project, number=0, profile="quick"):
    copy = project / "runs" / "workbook" / profile / "01_convnorm.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(json.dumps(executed(number)))
    return copy


def links(text):
    found = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    return found + re.findall(r'(?:src|href)="([^"#]+)', text)


def test_every_link_of_the_gallery_leads_to_a_file_and_every_picture_is_in_it(project):
    keep(project)
    assert close(project) is None
    for readme in (project / "figures/README.md", project / "README.md"):
        missing = [x for x in links(readme.read_text()) if not (readme.parent / x).is_file()]
        assert links(readme.read_text()) and not missing, missing
    text = (project / "figures" / "README.md").read_text()
    for profile in ("quick", "cifar10"):
        for path in (project / "figures" / profile).rglob("*.png"):
            place = path.relative_to(project / "figures").as_posix()
            assert text.count(f'<img src="{place}"') == 1, place
    assert "smoke" not in text, "a profile that only shows that everything runs"


def test_anchors_of_the_scoreboard_are_in_the_gallery(project):
    close(project)
    anchors = re.findall(r"figures/README\.md#([\w-]+)", (project / "README.md").read_text())
    text = (project / "figures" / "README.md").read_text()
    assert sorted(anchors) == ["cifar10-convnorm", "quick-convnorm"]
    assert all(f'<a id="{anchor}"></a>' in text for anchor in anchors)


def test_a_figure_stands_under_the_claim_whose_section_draws_it(project):
    close(project)
    text = (project / "figures" / "README.md").read_text()
    quick = text[text.index("## quick") : text.index("## cifar10")]
    parts = {part.split("\n")[0]: part for part in quick.split("#### ")}
    drawn = {title: re.findall(r'alt="(\w+)"', part) for title, part in parts.items()}
    assert drawn["cn.noise: wrong labels"] == ["noise_mlp", "noise_resnet", "noise_vgg", "more"]
    assert drawn["cn.gan: a network"] == []
    assert drawn["Other claims and figures"] == ["loose"]
    told = "`cn.noise` **contradicted**: ConvNorm leads. Effect -0.25 (-0.5 to -0.125), n = 4,"
    assert f"{told} profile `quick`." in parts["cn.noise: wrong labels"]
    assert "`cn.gan` **not run**: Scores rise.\n" in parts["cn.gan: a network"]
    assert "`cn.curves` **reproduced**: Curves rise. Effect 0.5, n = 3," in quick


def test_a_second_write_changes_no_byte_and_no_file(project):
    copy = keep(project)
    assert close(project) is None
    written = [project / "README.md", *(project / "figures").rglob("*")]
    files = [path for path in written if path.is_file()]

    def seen():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = seen()
    assert close(project, "up to date") is None
    assert gallery.write(workbook.Folders()) == []
    assert seen() == before
    page = project / "figures/quick/01_convnorm.html"
    copy.write_text(json.dumps(executed(1)))
    content = page.read_bytes()
    pages.write(copy, page)
    assert page.read_bytes() == content, "another execution with the same results"


def test_the_rest_of_the_readme_stays_and_all_of_it_for_figures_elsewhere(project, monkeypatch):
    close(project)
    text = (project / "README.md").read_text()
    assert text.startswith("# Title\n\n<!-- scoreboard -->\n\n| claims | ")
    assert text.endswith("<!-- /scoreboard -->\n\nThe rest.\n") and "old" not in text
    assert "| Channels | [1 reproduced, 1 contradicted, 1 not run](" in text
    (project / "README.md").write_text(README)
    shutil.move(project / "figures", project / "elsewhere")
    monkeypatch.setenv("NORMKIT_FIGURES", str(project / "elsewhere"))
    close(project)
    assert (project / "README.md").read_text() == README
    assert (project / "elsewhere" / "README.md").is_file()


@pytest.mark.parametrize("text", ["# No markers\n", "a\n<!-- scoreboard -->\nno end\n"])
def test_a_readme_without_both_markers_stays(project, text):
    (project / "README.md").write_text(text)
    assert close(project) is None and (project / "README.md").read_text() == text


def test_seconds_and_machine_are_those_kept_and_stay_where_nothing_is_kept(project):
    kept = dict.fromkeys(state.NEEDED, {}) | {"state": "done"}
    kept |= {"run": {"seconds": 12, "machine": "a processor, torch 2"}}
    path = project / "runs" / "workbook" / "quick" / "01_convnorm.json"
    state.write(path, kept)
    close(project)
    line = "| `quick` | `01_convnorm` | 12 | a processor, torch 2 |"
    readme = project / "figures" / "README.md"
    assert readme.read_text().endswith(f"{line}\n")
    path.unlink()
    gallery.write(workbook.Folders())
    assert readme.read_text().endswith(f"{line}\n"), "figures that were copied without their runs"


def test_what_is_missing_or_old_is_written_without_a_run(project):
    copy, page = keep(project), project / "figures/quick/01_convnorm.html"
    close(project)
    content = page.read_bytes()
    for path in (page, project / "figures" / "README.md"):
        path.unlink()
        assert close(project, "up to date") is None and path.is_file()
    page.write_text("old")
    os.utime(page, (0, 0))
    close(project, "failed")
    assert page.read_text() == "old", "a run that failed has no page"
    close(project, "up to date")
    assert page.read_bytes() == content
    copy.unlink()
    page.unlink()
    assert close(project, "up to date") is None, "nothing to make it of"


def test_only_the_default_profile_gets_pages(project):
    keep(project, profile="cifar10")
    assert close(project, profile="cifar10") is None
    assert not list((project / "figures").rglob("*.html"))


@pytest.mark.parametrize("case", ["disk", "copy", "claims"])
def test_what_goes_wrong_is_one_sentence(project, monkeypatch, case):
    copy = keep(project)
    named = {"disk": "README.md", "copy": copy.name, "claims": "cifar10/claims.csv"}[case]
    if case == "disk":

        def full(path, content):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(gallery, "replace", full)
    elif case == "copy":
        copy.write_text('{"cells": [3]}')
    else:
        (project / "figures/cifar10/claims.csv").write_text("id,paper\ncn.noise,convnorm\n")
    told = close(project)
    assert told and named in told and "\n" not in told, told


def test_a_page_is_whole_without_a_network_and_small(project):
    content = pages.page(executed())
    assert len(content.encode()) < 2_000_000
    assert not re.search(r"<script|<link|@import|url\(", content)
    sources = re.findall(r'src="([^"]{0,30})', content)
    assert sources and all(s.startswith("data:image/png;base64,") for s in sources), sources
    assert content.count("<math") == 4 and "$" not in content
    assert "<title>Norms of G</title>" in content
    assert "six runs" in content
    for gone in ("progress", "slider", "2020", "widget-view", "In&nbsp;["):
        assert gone not in content, gone


def test_a_picture_in_a_page_looks_like_itself():
    drawn = Image.open(io.BytesIO(picture(200))).convert("RGB")
    small = pages._small(base64.b64encode(picture(200)).decode())
    shown = Image.open(io.BytesIO(base64.b64decode(small))).convert("RGB")
    assert shown.size == drawn.size
    worst = max(abs(a - b) for a, b in zip(shown.tobytes(), drawn.tobytes(), strict=True))
    assert worst <= 2, "256 grays keep a ramp of 256 grays, to rounding"


def test_what_is_no_latex_stays_readable():
    assert "<code>\\frac</code>" in pages._html(r"a $\frac$ b")


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_every_formula_of_the_notebooks_becomes_mathml(path):
    cells = json.loads(path.read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    formulas = [a or b for text in texts for a, b in re.findall(FORMULA, text, re.DOTALL)]
    for formula in formulas:
        found = pages.mathml(formula)
        assert found.startswith("<math") and "\\" not in found, formula
    shown = "".join(pages._html(text) for text in texts)
    assert shown.count("<math") == len(formulas)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_every_claim_that_a_section_names_exists(path):
    assert {name for section in sections(path) for name in section.claims} <= IDS


def test_every_claim_has_a_section_in_the_notebook_of_its_paper():
    named = {(p.stem[3:], n) for p in SOURCES for s in sections(p) for n in s.claims}
    missing = [claim.id for claim in CLAIMS if (claim.paper, claim.id) not in named]
    assert not missing, missing


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_every_figure_that_is_kept_has_a_section(path):
    found = sections(path)
    for profile in gallery.SHOWN:
        kept = (PROJECT / "figures" / profile / path.stem[3:]).glob("*.png")
        loose = [file.stem for file in kept if home(file.stem, found) is None]
        assert not loose, loose


@pytest.mark.parametrize("readme", ["README.md", "figures/README.md"])
def test_every_file_that_the_project_s_own_pages_name_is_there(readme):
    path = PROJECT / readme
    named = [link for link in links(path.read_text()) if "://" not in link]
    missing = [link for link in named if not (path.parent / link).exists()]
    assert named and not missing, missing


def test_verdicts_are_counted_in_the_order_of_the_scoreboard():
    assert gallery.VERDICTS == scoreboard.VERDICTS
