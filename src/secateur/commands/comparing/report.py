"""`secateur report`: the page of one run, or of several side by side."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from secateur.commands import Summary, command


@dataclass(frozen=True)
class ReportOptions:
    """Write one HTML page on one run, or on several runs side by side; it opens from disk and needs no network."""

    runs: Positional[tuple[str, ...]] = ()
    """Folders of runs, also of one that has not ended."""
    output: str = ""
    """File to write (default: report.html in the folder of the run, or of the first one)."""
    reference: str = ""
    """CSV or JSON file of networks to compare with, with the columns label, line, mAP50, mAP50_95, parameters, gflops,
    mb and ms (default: the published figures of YOLO networks, where the runs are on COCO)."""
    json: bool = False
    """Print only JSON."""


@command("report", "write the HTML page of a run, or of several side by side", lambda: ReportOptions, order=75,
         computes=False, json=lambda options: options.json)  # fmt: skip
def report(options: ReportOptions) -> Summary:
    """Writes the page.

    Raises:
        UserError: a folder holds no run, a package is missing, or the page would take the place of something else.
    """
    from pathlib import Path

    from secateur.errors import UserError
    from secateur.files import usable_path
    from secateur.report.page import PAGE, may_replace, write_page

    if not options.runs:
        raise UserError("No run is given; name the folder of one, for example secateur report runs/run/exp.")
    file = usable_path(options.output or Path(options.runs[0]) / PAGE)
    if file.is_dir() or file.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"--output {file} is no HTML file; give a name that ends in .html.")
    if not may_replace(file):
        raise UserError(f"{file} is no page of Secateur, and nothing else is overwritten; give another --output.")
    written = write_page(options.runs, file, options.reference)
    print(f"Report: {written} ({written.stat().st_size / 1e6:.1f} MB)")
    return {"command": "report", "runs": list(options.runs), "file": str(written)}
