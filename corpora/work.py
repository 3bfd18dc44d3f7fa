"""The work folder, under the name by which programs outside import it."""

from corpora.base.work import Work

__all__ = ["Work"]
