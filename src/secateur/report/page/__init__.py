"""The report page of a run: one HTML file with tables, figures and images that opens offline."""

from secateur.report.page.writing import PAGE, leave_page, may_replace, write_page

__all__ = ["PAGE", "leave_page", "may_replace", "write_page"]
