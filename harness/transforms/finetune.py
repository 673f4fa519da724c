"""Plain fine-tuning: makes a model that knows a text, such as the one that is to forget, or the reference without it.

All parameters are trained by language modelling on the rows of some sources together, one seeded permutation of them an
epoch; of rows with a question the answers count.
"""

from __future__ import annotations

from ...methods.likelihood import LanguageModelling
from ..corpora import TemplateSpec
from ..data import TrainingText, load_rows, texts
from ..errors import UserError
from ..runtime import OnEvent
from ..training.batches import Corpora
from .base import BuildJob, Transform, TransformResult, register
from .train import plainly_trained


@register("finetune")
class Finetune(Transform):
    """Fine-tune the base, or the cell's parent, on text.

    Its cell's settings hold `version`, `training`, `data` (`text`: the digests of the sources' rows, in their order,
    and `template` of questions) and `dtype`; the sources are the job's `text`.

    Class attributes:
        version: raised whenever a change alters what it makes from the same text.
    """

    summary = "plain fine-tuning on text, or on the answers to questions"
    version = 1

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Train and return the changed tensors with the log, one row a step."""
        text = finetune_text(job)
        template = TemplateSpec.parse(job.cell.settings["data"].get("template", {}), "template")
        method = LanguageModelling(LanguageModelling.Settings())
        return plainly_trained(job, report, method, Corpora({"text": text}, text, template=template))


def finetune_text(job: BuildJob) -> list[TrainingText]:
    """Read the rows of a job's sources; raise a `UserError` where they are not those of the cell."""
    rows = [load_rows(source, job.folder, source.text_row) for source in job.text]
    if [own.digest for own in rows] != job.cell.settings["data"]["text"]:
        raise UserError(f"The text for {job.cell.label} changed after the run was planned; run again.")
    return [text for own, source in zip(rows, job.text, strict=True) for text in texts(own.rows, source)]
