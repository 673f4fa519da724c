"""A scorer trained elsewhere: the linear classifier that comes inside the package alt-profanity-check."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib import import_module

from ...harness.errors import UserError
from ..base import scorers
from ._texts import DIGITS
from .kinds import Packaged


@scorers.register("profanity_check")
class ProfanityCheck(Packaged):
    """A calibrated linear SVM on words, fitted by its authors on some 200,000 comments and tweets labelled by people.

    The package's weights are pickles, and importing it runs them: like any code of a package, they are trusted by
    installing it. They load only under the scikit-learn that wrote them.
    """

    summary = "the package alt-profanity-check: a linear classifier trained on other people's labels, no folder"
    version = 1
    package = "alt-profanity-check"

    def __init__(self, folder: str = "", device: str = "cpu") -> None:
        """Import the package; raise a `UserError` where it is missing or another scikit-learn wrote its weights."""
        from sklearn.exceptions import InconsistentVersionWarning

        self.name = self.installed()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", InconsistentVersionWarning)
                self._toxic: Callable[[list[str]], Sequence[float]] = import_module("profanity_check").predict_prob
        except InconsistentVersionWarning as error:
            raise UserError(
                f"The weights in {self.name} were written by scikit-learn {error.original_sklearn_version}, but"
                f" {error.current_sklearn_version} is installed: pip install 'unlearn-bench[{self.extra}]'."
            ) from error

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return the package's probability of each text, rounded to six digits."""
        return [round(float(value), DIGITS) for value in self._toxic(list(texts))] if texts else []
