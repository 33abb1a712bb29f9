"""From a DataFrame to statistics, tables, figures and a page. Needs no torch."""

from bench.report.build import Report, write

__all__ = ["Report", "write"]
