"""Kinds of scorers that need more than a folder: those fitted when loaded, and those that come in a package."""

from __future__ import annotations

from abc import abstractmethod
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

from ...harness.errors import UserError
from ..base import Scorer


class Fitted(Scorer):
    """A scorer that is fitted on the labelled text of its folder each time it is loaded."""

    @abstractmethod
    def held_out(self) -> str:
        """Say how well it judges labelled text that it was not fitted on, with the number of texts."""

    def about(self) -> list[str]:
        """Return `held_out`."""
        return [self.held_out()]


class Packaged(Scorer):
    """A scorer whose weights come inside an installed package; it needs no folder.

    Class attributes:
        package: the distribution's name; its version is the scorer's digest.
        extra: the extra of this project that installs it.
    """

    package: ClassVar[str]
    extra: ClassVar[str] = "judges"

    @classmethod
    def installed(cls) -> str:
        """Return the package with its version; raise a `UserError` that says how to install it."""
        try:
            return f"{cls.package} {version(cls.package)}"
        except PackageNotFoundError:
            raise UserError(
                f"This scorer comes in the package {cls.package}, which is not installed: pip install"
                f" 'unlearn-bench[{cls.extra}]', or pass another scorer with --scorer."
            ) from None
