"""Shows a report as one HTML page that needs nothing else: no network, no server, no other file."""

from tuner.report.page.render import render

__all__ = ["render"]
