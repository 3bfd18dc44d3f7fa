"""Rows of a comparison taken on with their encoders: phases 2 and 3 from the head of phase 1.

Phase 1 is what the comparison did: the row's head on frozen frames, as tuned, of the first seed
(no choice is made among seeds). Models go to `WORK/compare/finetuned/<row>/`. What stands behind a
row's name trains adapters in place of the encoders: `MQMHA:lora`, `MQMHA:lora:16` (the rank),
`MQMHA:lora:16:q_proj+v_proj` (the layers that get one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from corpora.base.errors import ConfigError, did_you_mean
from corpora.base.files import file_sha256, read_json, write_json
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.adapters import require_peft
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from finetune.model_files import CONFIG
from finetune.phases import ENCODER_PHASES
from finetune.training import Tell
from heads.axes import choices
from heads.compare.compare import run_compare
from heads.compare.comparison import CompareReport, Finetuned
from heads.compare.rendering import write_report
from heads.compare.rows import MODALITIES
from heads.config import CompareConfig
from heads.search.space import PUBLISHED, other_poolings, pooling_axes

FORMAT, VERSION = "emopool-compare-finetuned", 1
FOLDER, SCORES = "finetuned", "scores.json"
DONE = "1 on frozen frames (the comparison's), then 2 and 3 with its encoders"


def check_names(names: Sequence[str], manifest: Manifest, config: CompareConfig) -> None:
    """Refuse rows that will not be in the tables, before anything is trained.

    Raises:
        ConfigError: such a name, heads with attributes, or the comparison is one of folds, which
            has no one head a row.
    """
    if names and config.targets != "emotion":
        raise ConfigError(f"--finetune reads classes alone. Leave out --targets {config.targets}.")
    if names and config.folds and any(u.fold and u.label for u in manifest.utterances):
        raise ConfigError(
            "--finetune needs one head a row, and this manifest has folds: a comparison over them "
            "trains one for each fold. Compare with --no-folds, which goes by the splits."
        )
    known = _titles(config)
    for name, asked in map(row_of, names):
        if asked.adapter:
            require_peft()
        if name.lower() not in {title.lower() for title in known}:
            raise ConfigError(
                f"--finetune: no row {name!r} in the tables {', '.join(config.tables)}."
                f"{did_you_mean(name, known)} Known: {', '.join(known)}."
            )


def row_of(text: str) -> tuple[str, FinetuneConfig]:
    """The name of a row, and how it is taken on.

    Raises:
        ConfigError: what stands behind the name says no adapters.
    """
    name, *behind = text.split(":")
    if not behind:
        return name, FinetuneConfig(phases=ENCODER_PHASES)
    kind, rank, targets, *more = (*behind, "", "")[: max(3, len(behind))]
    if kind != "lora" or more or (rank and not rank.isdigit()):
        raise ConfigError(
            f"--finetune {text}: expected a row's name, and behind it nothing or :lora, "
            ":lora:RANK or :lora:RANK:TARGET+TARGET, such as MQMHA:lora:16:q_proj+v_proj."
        )
    return name, FinetuneConfig(
        phases=ENCODER_PHASES,
        adapter=kind,
        lora_rank=int(rank) if rank else FinetuneConfig.lora_rank,
        lora_targets=tuple(target for target in targets.split("+") if target),
    )


def compare_rows(
    work: Work,
    manifest: Manifest,
    config: CompareConfig,
    names: Sequence[str],
    *,
    fresh: bool = False,
    tell: Tell | None = None,
    show_progress: bool = False,
) -> CompareReport:
    """Compare heads on frozen frames, and take the named rows on with their encoders.

    Arguments and errors as for `heads.compare.compare.run_compare` and `finetune_rows`.
    """
    check_names(names, manifest, config)
    report = run_compare(work, manifest, config, fresh=fresh, show_progress=show_progress)
    if not names:
        return report
    return finetune_rows(
        work,
        manifest,
        report,
        names,
        device=config.device,
        plot=config.plot,
        tell=tell,
        show_progress=show_progress,
    )


def finetune_rows(
    work: Work,
    manifest: Manifest,
    report: CompareReport,
    names: Sequence[str],
    *,
    device: str = "auto",
    plot: bool = True,
    tell: Tell | None = None,
    show_progress: bool = False,
) -> CompareReport:
    """Fine-tune rows of a comparison, each into a folder of its own; one that is done is kept.

    Args:
        work: the work folder.
        manifest: the utterances, with their splits.
        report: of the comparison.
        names: titles of rows, see `row_of`.
        device: `auto`, `cpu` or `cuda`.
        plot: as the comparison was made.
        tell: called with a few lines of text at the start of each phase.
        show_progress: whether to draw progress bars.

    Returns:
        The report with these rows, its files written again.

    Raises:
        ConfigError: a row was left out of the comparison.
        Others: as `finetune.finetune.run_finetune`.
    """
    done = []
    for name, asked in map(row_of, names):
        line = report.find(name)
        if line is None or line.key not in report.heads:
            raise ConfigError(f"--finetune {name}: {' '.join(report.notes) or 'no such row.'}")
        title, key = line.title, line.key
        if asked.adapter:
            targets = "+".join(asked.lora_targets)
            title += f", LoRA rank {asked.lora_rank}{f' on {targets}' if targets else ''}"
            key += "-".join(("", asked.adapter, str(asked.lora_rank), *asked.lora_targets))
        if tell is not None:
            tell(f"\nFine-tuning {title} (rate {line.tunings[0].learning_rate:g}, seed 0)")
        head = report.heads[line.key]
        folder = work.compare / FOLDER / key
        kept = _kept(folder, head, title)
        if kept is None:
            config = replace(asked, device=device)
            kept = _finetune(work, manifest, title, head, folder, config, tell, show_progress)
        done.append(kept)
    return write_report(replace(report, finetuned=tuple(done)), plot=plot)


def _finetune(
    work: Work,
    manifest: Manifest,
    title: str,
    head: Path,
    folder: Path,
    config: FinetuneConfig,
    tell: Tell | None,
    show_progress: bool,
) -> Finetuned:
    own = replace(work, results=folder)
    found = run_finetune(own, manifest, config, head=head, tell=tell, show_progress=show_progress)
    row = Finetuned(
        title=title,
        phases=DONE,
        directory=found.directory,
        dev=(found.phases[0].start.value, found.phases[-1].best.value),
        head=None if found.head is None else found.head.report,
        model=None if found.model is None else found.model.report,
        notes=found.notes,
        trained=max(sum(part.parameters for part in phase.table) for phase in found.phases),
    )
    value = {
        "format": FORMAT,
        "version": VERSION,
        "head_sha256": file_sha256(head),
        **row.to_json(),
    }
    write_json(folder / SCORES, value)
    return row


def _kept(folder: Path, head: Path, title: str) -> Finetuned | None:
    """What was found before from the same head, whose model is still there."""
    path = folder / SCORES
    if not path.is_file() or not (folder / "model" / CONFIG).is_file():
        return None
    value = read_json(path, kind=FORMAT, version=VERSION)
    if value["head_sha256"] != file_sha256(head):
        return None
    return Finetuned.from_json({**value, "title": title, "directory": folder / "model"})


def _titles(config: CompareConfig) -> list[str]:
    """Titles of the rows that these options can give."""
    titles: list[str] = []
    if "poolings" in config.tables:
        every = (*PUBLISHED, *other_poolings())
        wanted = {name.lower() for name in config.poolings or every}
        titles += [name for name in every if name.lower() in wanted]
    if "modalities" in config.tables:
        titles += MODALITIES
    if "grid" in config.tables:
        axes = [pooling_axes()[name] for name in ("queries", "heads", "scorer_layers")]
        queries, heads, depths = (choices(axis) for axis in axes)
        titles += [f"Q{q} H{h} n{n}" for n in depths for q in queries for h in heads]
    return titles
