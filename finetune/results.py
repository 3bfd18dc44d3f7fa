"""The results of a whole run beside one another: reference, searched head, fine-tuned model."""

from __future__ import annotations

from corpora.errors import ConfigError
from corpora.manifest import read_manifest
from corpora.text_table import aligned
from corpora.work import Work
from finetune.evaluation import caveats, read_report
from heads.metrics import Report, score_cells
from heads.reference import read_reference
from heads.results import REFERENCE, load_head


def check_demo_folder(work: Work) -> None:
    """Refuse to replace somebody's own manifest.

    Raises:
        ConfigError: the work folder holds another corpus than the sample corpus.
    """
    if work.manifest.is_file():
        corpus = read_manifest(work.manifest).corpus
        if corpus != "sample":
            raise ConfigError(
                f"{work.root} holds a manifest of {corpus or 'another corpus'}, "
                "which the demo would replace. Name another folder with --work."
            )


def results_text(work: Work) -> str:
    """The test scores that a work folder holds, as a table, and what to try next.

    Raises:
        MissingStepError: there is no searched head, or nothing was evaluated.
    """
    record = load_head(work.search)[1]
    reference = read_reference(work.search / REFERENCE)
    scored: list[tuple[str, Report | None]] = [
        ("logistic regression (reference)", reference.test if reference else None),
        (f"searched head (trial {record.trial})", record.scores.get("test")),
        ("fine-tuned model (phases 2 and 3)", read_report(work, "model", "test")),
    ]
    rows: list[tuple[str, ...]] = [("test set", "macro-F1", "UA", "WA", "utterances")]
    rows += [(name, *score_cells(report)) for name, report in scored if report is not None]
    chance = 1 / len(record.head.labels)
    modalities = record.head.modalities
    encoders = {name: record.origin.encoders[name] for name in modalities}
    return "\n".join(
        [
            "",
            f"Results on {record.origin.corpus}",
            *aligned(rows),
            f"Guessing gives a UA of {chance:.3f}.",
            *caveats(encoders, synthetic=record.origin.synthetic),
            "",
            "Try next, with recordings of your own (a CSV with the columns audio and label):",
            "  python cli.py prepare csv my_corpus.csv --work my_work",
            "  python cli.py extract --work my_work      (W2V-BERT 2.0 and DeBERTa-v3, on a GPU)",
            "  python cli.py search --trials 100 --work my_work",
            "  python cli.py finetune --best --work my_work",
        ]
    )
