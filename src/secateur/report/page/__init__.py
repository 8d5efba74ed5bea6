"""The page of a run: one HTML file with tables, figures and images, which opens from disk without a network."""

from secateur.report.page.writing import PAGE, leave_page, may_replace, write_page

__all__ = ["PAGE", "leave_page", "may_replace", "write_page"]
