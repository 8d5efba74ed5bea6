"""Writes the report page: sections from run folders, in one HTML file that works offline."""

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
"""Maximum characters of the page; plotly.js takes about 4.8 million of them."""
_PACKAGES = ("plotly", "jinja2")
NOT_INSTALLED = "The report page needs plotly and jinja2: pip install 'secateur[report]'."


def write_page(folders: Sequence[str | Path], file: str | Path, reference: str | Path = "") -> Path:
    """Writes one page for one or several runs.

    Args:
        folders: run folders.
        file: file to write.
        reference: CSV or JSON file of networks to compare with, see `read_reference`; "" uses published figures if the
            runs are on COCO.

    Returns:
        the file.

    Raises:
        UserError: a package is missing, a folder does not contain a run, or the file cannot be written.
    """
    check_installed()
    runs = read_runs(folders)
    points = read_reference(reference) if str(reference) else []
    path = Path(file)
    text = page_text(runs, points)
    write_text(path, text)
    return path


def leave_page(folder: Path) -> Path | None:
    """Writes report.html into the folder of a completed run.

    Failures and missing packages are logged as warnings and do not fail the run.

    Returns:
        the file, or None.
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
    """Whether a page may be written to a file: the file does not exist, or is a page written by Secateur."""
    if not file.is_file():
        return True
    with file.open("rb") as stream:
        return b'<meta name="generator" content="Secateur' in stream.read(4096)


def installed() -> bool:
    """Whether the packages of the extra `report` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


def check_installed() -> None:
    """Checks that the extra is installed.

    Raises:
        UserError: it is not installed; the message names it.
    """
    if not installed():
        raise UserError(NOT_INSTALLED)


def sections_of(runs: Sequence[RunData], references: Sequence[ReferencePoint] = ()) -> list[Section]:
    """Every section in the order of the page, including the absent ones."""
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
    # The headline comes last, because it lists damaged files, which reading for other sections may find.
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
    """The hash by which the content security policy allows a script; all other scripts are blocked."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def heading_of(runs: Sequence[RunData]) -> str:
    """The heading of the page: the names of the runs."""
    names = [f"{run.folder.resolve().parent.name}/{run.folder.resolve().name}" for run in runs]
    return f"Run {names[0]}" if len(names) == 1 else f"{len(names)} runs: {', '.join(run.label for run in runs)}"


class _Numbers:
    """Maps charts to their names on the page by identity, because charts contain lists and are not hashable."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self.names = numbered(sections)

    def __getitem__(self, chart: Chart) -> str:
        return self.names[id(chart)]


def numbered(sections: Sequence[Section]) -> dict[int, str]:
    """The names of the charts on the page, by the identity of the chart."""
    charts = [block for section in sections for block in section.blocks if isinstance(block, Chart)]
    return {id(chart): f"figure-{place}" for place, chart in enumerate(charts, 1)}


def _views(sections: Sequence[Section]) -> dict[str, Any]:
    """The data for the script, by the name of the figure."""
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
"""Entries of a trace that may contain users' names; all others are numbers or fixed words."""


def _named(trace: Trace) -> Trace:
    """The trace with its names escaped for Plotly's tags."""
    return trace | {key: _without_tags(trace[key]) for key in _NAMES if key in trace}


def _without_tags(value: Any) -> Any:
    if isinstance(value, str):
        return wording.markup(value)
    return [_without_tags(entry) for entry in value] if isinstance(value, list | tuple) else value


def as_script_data(value: Any) -> str:
    """JSON that is safe between script tags. Non-finite numbers become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value
