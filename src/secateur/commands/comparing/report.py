"""`secateur report`: the HTML page of one or several runs."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from secateur.commands import Summary, command


@dataclass(frozen=True)
class ReportOptions:
    """Write one HTML page for one or several runs. The page works offline."""

    runs: Positional[tuple[str, ...]] = ()
    """Run folders, of completed or interrupted runs."""
    output: str = ""
    """Output file (default: report.html in the folder of the first run)."""
    reference: str = ""
    """CSV or JSON file of networks to compare with, with the columns label, line, mAP50, mAP50_95, parameters, gflops,
    mb and ms (default: published figures of YOLO networks if the runs are on COCO).
    """
    json: bool = False
    """Print only JSON."""


@command("report", "write the HTML page of one or several runs", lambda: ReportOptions, order=75,
         computes=False, json=lambda options: options.json)  # fmt: skip
def report(options: ReportOptions) -> Summary:
    """Writes the page.

    Raises:
        UserError: a folder does not contain a run, a package is missing, or the file exists and is not a page of
            Secateur.
    """
    from pathlib import Path

    from secateur.errors import UserError
    from secateur.files import usable_path
    from secateur.report.page import PAGE, may_replace, write_page

    if not options.runs:
        raise UserError("No run is given. Give a run folder, for example secateur report runs/run/exp.")
    file = usable_path(options.output or Path(options.runs[0]) / PAGE)
    if file.is_dir() or file.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"--output {file} is not an HTML file. Use the file extension .html.")
    if not may_replace(file):
        raise UserError(
            f"{file} exists and is not a page of Secateur, so it is not overwritten. Choose another --output."
        )
    written = write_page(options.runs, file, options.reference)
    print(f"Report: {written} ({written.stat().st_size / 1e6:.1f} MB)")
    return {"command": "report", "runs": list(options.runs), "file": str(written)}
