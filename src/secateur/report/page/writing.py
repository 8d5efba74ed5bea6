"""Writes the page: sections from run folders, one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import logging
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from secateur import __version__
from secateur.errors import UserError, told
from secateur.files import write_text
from secateur.report.page import wording
from secateur.report.page.blocks import Chart, Section, Trace
from secateur.report.page.model import RunData, read_runs
from secateur.report.page.reference import ReferencePoint, read_reference
from secateur.report.page.sections.classes import classes
from secateur.report.page.sections.cliff import cliff
from secateur.report.page.sections.curves import curves
from secateur.report.page.sections.distributions import distributions
from secateur.report.page.sections.gallery import gallery
from secateur.report.page.sections.headline import headline
from secateur.report.page.sections.latency import latency
from secateur.report.page.sections.operating import operating
from secateur.report.page.sections.pareto import pareto
from secateur.report.page.sections.settings import settings
from secateur.report.page.sections.stages import stages
from secateur.report.page.sections.training import training
from secateur.report.page.sections.widths import widths

LOG = logging.getLogger("secateur")
PAGE = "report.html"
MOST_BYTES = 8_000_000
"""Of the whole page; plotly.js takes some 4.8 million of them."""
_PACKAGES = ("plotly", "jinja2")
NOT_INSTALLED = "The page needs plotly and jinja2: pip install 'secateur[report]'."


def write_page(folders: Sequence[str | Path], file: str | Path, reference: str | Path = "") -> Path:
    """Writes one page on one or several runs, side by side.

    Args:
        folders: of the runs.
        file: to write.
        reference: CSV or JSON of networks to compare with, see `read_reference`; "" takes the published ones of COCO
            where the runs are on COCO.

    Returns:
        the file.

    Raises:
        UserError: a package is missing, a folder holds no run, or the file cannot be written.
    """
    check_installed()
    runs = read_runs(folders)
    points = read_reference(reference) if str(reference) else []
    path = Path(file)
    text = page_text(runs, points)
    write_text(path, text)
    return path


def leave_page(folder: Path) -> Path | None:
    """Writes report.html into the folder of a run that has come to its end.

    A run is never lost for its page: what goes wrong is a warning, and so is a package that is not installed.

    Returns:
        the file; None where there is none.
    """
    if not installed():
        LOG.warning("No %s: %s", PAGE, NOT_INSTALLED[:1].lower() + NOT_INSTALLED[1:])
        return None
    try:
        return write_page([folder], folder / PAGE)
    except Exception as error:
        LOG.warning("No %s: %s (the run itself is complete).", PAGE, told(error))
        return None


def may_replace(file: Path) -> bool:
    """Whether a page may be written to a file: there is none, or it is a page of ours."""
    if not file.is_file():
        return True
    with file.open("rb") as stream:
        return b'<meta name="generator" content="Secateur' in stream.read(4096)


def installed() -> bool:
    """Whether the packages of the extra `report` are there."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


def check_installed() -> None:
    """Refuses where the extra is missing.

    Raises:
        UserError: naming what to install.
    """
    if not installed():
        raise UserError(NOT_INSTALLED)


def sections_of(runs: Sequence[RunData], references: Sequence[ReferencePoint] = ()) -> list[Section]:
    """Every section in the order of the page, also those that are absent."""
    found = [
        stages(runs),
        pareto(runs, references),
        cliff(runs),
        gallery(runs),
        classes(runs),
        operating(runs),
        curves(runs),
        widths(runs),
        distributions(runs),
        training(runs),
        latency(runs),
        settings(runs),
    ]
    # Last, since reading the rest may find files that are damaged, which the headline says.
    return [headline(runs), *found]


def page_text(runs: Sequence[RunData], references: Sequence[ReferencePoint] = ()) -> str:
    """The page as text."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    assets = files("secateur.report.page") / "assets"
    script, style = ((assets / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    found = sections_of(runs, references)
    shown = [section for section in found if not section.absent]
    views = _views(shown)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((assets / "page.html").read_text(encoding="utf-8"))
    names = [run.label for run in runs]
    page = template.render(
        title=f"Secateur: {' and '.join(names)}" if len(names) < 3 else f"Secateur: {len(names)} runs",
        runs=runs,
        sections=shown,
        absent=[section for section in found if section.absent],
        heading=heading_of(runs),
        charts=_Numbers(shown),
        data=Markup(as_script_data(views)),
        style=Markup(style),
        script=Markup(script),
        plotly=Markup(plotly),
        hashes=" ".join(f"'sha256-{digest(text)}'" for text in (plotly, script)),
        version=__version__,
    )
    return f"{page.lstrip()}\n"


def digest(text: str) -> str:
    """The hash by which the content security policy allows a script; no other script runs."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def heading_of(runs: Sequence[RunData]) -> str:
    """The heading of the page: the runs by name."""
    names = [f"{run.folder.resolve().parent.name}/{run.folder.resolve().name}" for run in runs]
    return f"Run {names[0]}" if len(names) == 1 else f"{len(names)} runs: {', '.join(run.label for run in runs)}"


class _Numbers:
    """Names of charts in the page, by the chart itself; charts hold lists and have no hash."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self.names = numbered(sections)

    def __getitem__(self, chart: Chart) -> str:
        return self.names[id(chart)]


def numbered(sections: Sequence[Section]) -> dict[int, str]:
    """The names of the charts in the page by the identity of the chart."""
    charts = [block for section in sections for block in section.blocks if isinstance(block, Chart)]
    return {id(chart): f"figure-{place}" for place, chart in enumerate(charts, 1)}


def _views(sections: Sequence[Section]) -> dict[str, Any]:
    """What the script draws, by the name of the figure."""
    names = numbered(sections)
    charts = [block for section in sections for block in section.blocks if isinstance(block, Chart)]
    return {
        names[id(chart)]: {
            "first": chart.first(),
            "views": {
                key: {"data": [_named(trace) for trace in view.traces], "layout": view.layout}
                | ({"words": view.words} if view.words else {})
                for key, view in chart.views.items()
            },
        }
        for chart in charts
    }


_NAMES = ("name", "x", "y", "text")
"""What of a trace may be names of the user's; the rest is numbers or words of ours."""


def _named(trace: Trace) -> Trace:
    """The trace with names in which Plotly finds no tags."""
    return trace | {key: _without_tags(trace[key]) for key in _NAMES if key in trace}


def _without_tags(value: Any) -> Any:
    if isinstance(value, str):
        return wording.markup(value)
    return [_without_tags(entry) for entry in value] if isinstance(value, list | tuple) else value


def as_script_data(value: Any) -> str:
    """JSON that can be written between script tags: nothing in it ends them. What is no number becomes null."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value
