"""The stages of a work folder as sections of one page, of what each command left there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from cache.keys import MODALITIES
from cache.lookup import FrameCache
from cache.upkeep.info import cache_info
from corpora.base.files import file_sha256, read_json
from corpora.base.report import Figure, Part, Report, Table
from corpora.base.terminal import count_text, time_text
from corpora.base.work import command_line
from corpora.recordings import cut_seconds, read_headers
from corpora.summary import Tally
from explain.finding import findings_of
from explain.overview.standing import (
    FAULTS,
    HEAD,
    MODEL,
    REGRESSION,
    Standing,
    attempt,
    current,
    is_own,
)
from explain.report.write import FORMAT, PAGE, SUMMARY, VERSION
from explain.trust import FAITHFULNESS
from finetune.assembly import check_streams
from finetune.curves import PICTURE
from finetune.evaluate.evaluation import (
    REPORT,
    caveats,
    encoders_text,
    evaluation_figures,
    read_evaluation,
)
from finetune.finetune import phase_table
from finetune.model_directory import read_model_config
from finetune.model_files import CONFIG, has_model
from finetune.model_files import HEAD as HEAD_FILE
from finetune.training import PhaseResult
from heads.attributes import attributes_table
from heads.layer_choice import read_choices
from heads.metrics import scores_table
from heads.records import BEST, PLOTS_FOLDER, WEIGHTS, study_of, trial_file

DONE, MISSING, DAMAGED = "done", "missing", "damaged"


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage on the page.

    Attributes:
        parts: of its section; a line where it was not run or cannot be read.
        hint: beside the title: the gist.
        pictures: by figure name PNG or SVG files, which may be missing, of figures that are not
            drawn anew.
        late: why it is out of date; empty where it is not.
        state: `DONE`, `MISSING` or `DAMAGED`.
        title: of its section.
        command: that runs it.
    """

    parts: Sequence[Part]
    hint: str = ""
    pictures: Mapping[str, Path] = field(default_factory=dict)
    late: Sequence[str] = ()
    state: str = DONE
    title: str = ""
    command: str = ""

    @property
    def report(self) -> Report:
        """Its section."""
        late = f"OUT OF DATE: {'; '.join(self.late)}. Run again: {self.command}"
        return Report(self.title, [*[late] * bool(self.late), *self.parts])


Reader: TypeAlias = Callable[[Standing], Stage | None]


def read_stages(standing: Standing, *, show_progress: bool = False) -> list[Stage]:
    """All stages in the order of use; what cannot be read is a line.

    Args:
        standing: the work folder.
        show_progress: whether to draw a bar where recordings are counted.
    """
    found = []
    corpus: Reader = partial(_corpus, show_progress=show_progress)
    for title, (words, read) in {"Corpus": ("prepare", corpus), **STAGES}.items():
        command = command_line(words, standing.work.root)
        try:
            stage = read(standing) or Stage([f"Not run yet: {command}"], state=MISSING)
        except FAULTS as error:
            said = f"Cannot be read: {error if str(error) else type(error).__name__}"
            stage = Stage([said], state=DAMAGED)
        found.append(replace(stage, title=title, command=command))
    return found


def _corpus(standing: Standing, *, show_progress: bool) -> Stage:
    """Utterances, labels, speakers, splits, lengths: as `prepare` counts them."""
    manifest, rows = standing.manifest, standing.manifest.utterances
    headers = read_headers((u.audio for u in rows), show_progress=show_progress)
    seconds, _ = cut_seconds(rows, headers)
    tally = Tally.of(rows, manifest.labels, seconds)
    counts = [count_text(len(rows), "utterance"), count_text(tally.all_speakers, "known speaker")]
    counts += [time_text(sum(seconds.values()))] * bool(seconds)
    counts += [f"{sum(bool(u.text) for u in rows):,} with a text"]
    missing = len({u.audio for u in rows}) - sum(bool(one.rate) for one in headers.values())
    parts: list[Part] = [
        f"{manifest.corpus or 'A corpus without a name'}: {', '.join(counts)}.",
        f"Labels in their order: {', '.join(manifest.labels) or 'none'}.",
        *[f"Protocol: {manifest.protocol}."] * bool(manifest.protocol),
        *caveats({}, synthetic=manifest.synthetic, shared_speakers=manifest.shared_speakers),
        *[f"{count_text(missing, 'recording')} cannot be read now."] * bool(missing),
        tally.table(manifest.labels),
    ]
    return Stage(parts, ", ".join(counts))


def _extraction(standing: Standing) -> Stage | None:
    """Streams, how the layers were ranked, and what could not be used."""
    work = standing.work
    if not work.extraction.is_file():
        return None
    cache = FrameCache(work)
    info = cache_info(work, standing.manifest)
    parts: list[Part] = list(info.to_report().parts)
    failed = Counter(cache.failed.values()).most_common()
    if failed:
        parts += [Table("", ("reason", "utterances"), failed, "Could not be used", right=(1,))]
    sources = cache.sources.values()
    for choice in read_choices(work.layers).rankings.values():
        best = [one.best for one in sources if one.recipe.folder == choice.recipe]
        chosen = [layer for layer in best if layer is not None]
        parts += [choice.figure(chosen), choice.table(chosen)] if chosen else []
    names = [f"{one.recipe.kind} {encoder}" for one in sources if (encoder := one.encoder)]
    # Moments of other layers are those of a sample.
    read = [one for one in info.streams if one.last and one.layer is not None]
    lacking = max(((one.wanted or 0) - (one.present or 0) for one in read), default=0)
    late = [f"{lacking:,} inputs of the manifest are not in it"] * (lacking > len(cache.failed))
    return Stage(parts, ", ".join(names), late=late)


def _search(standing: Standing) -> Stage | None:
    """The history of trials, what mattered, the winner beside the regression."""
    folder = standing.work.search
    if not (folder / BEST).is_file():
        return None
    from heads.search.plots import axis_importance, study_figures
    from heads.search.report import read_search, trial_title
    from heads.search.trials import read_trials

    by = {
        split: standing.ahead(HEAD, REGRESSION, split)[0]
        for split, held in standing.rows.items()
        if HEAD in held and REGRESSION in held
    }
    ahead = {split: own for split, own in by.items() if own is not None}
    found = read_search(folder, standing.logistic, standing.ridge, ahead)
    best, late = found.best, []
    if not (standing.logistic or standing.ridge):
        late += ["its regression is missing, of other rows, or of an earlier version"]
    late += standing.of_another(best.origin.manifest_sha256)
    try:
        check_streams(FrameCache(standing.work), best)
    except FAULTS as error:
        late.append(str(error).rstrip("."))
    parts: list[Part] = list(found.to_report().parts)
    trials = read_trials(folder)
    if trials and found.completed:
        figures = study_figures(trials, standing.objective)
        measured = bool(axis_importance(trials))
        parts += [replace(one, name=f"study-{one.name}") for one in figures[: 2 + measured]]
        parts += ["Too few completed trials to say which axes matter."] * (not measured)
    kept = sorted((folder / PLOTS_FOLDER).glob("*.svg")) if not trials else []
    pictures = {f"study-{one.stem}": one for one in kept}
    parts += [_kept(name, f"The study: {one.stem}") for name, one in pictures.items()]
    parts += ["A database holds the study: `search --plots` draws it."] * (not trials and not kept)
    named = trial_title(best.start, best.params) or best.start
    score = f"{standing.objective} {best.dev_macro_f1:.3f} on {best.selected_on}"
    hint = f"{count_text(found.completed + found.halved, 'trial')}; best: {named}, {score}"
    return Stage(parts, hint, pictures, late)


def _comparison(standing: Standing) -> Stage | None:
    """The tables of `compare` and `compare --layers`, with the pictures that were drawn then."""
    from heads.compare.comparison import CompareReport
    from heads.compare.passes import FORMAT, VERSION
    from heads.compare.rendering import readable

    parts: list[Part] = []
    pictures: dict[str, Path] = {}
    late, hints = [], []
    for path in sorted(standing.work.compare.glob("*.json")):
        found = CompareReport.from_json(read_json(path, kind=FORMAT, version=VERSION))
        late += standing.of_another(found.origin.manifest_sha256)
        hints += [f"{one.name}: {one.best} best on dev" for one in found.tables]
        said, name = readable(found), f"compare-{found.name}"
        drawn = next((own.name for own in found.files if own.suffix == ".png"), "")
        if drawn:
            pictures[name] = path.with_name(drawn)
        shown = [_kept(name, f"{said.title}: scores with intervals")] * bool(drawn)
        title = said.title if found.name == "layers" else ""  # that of the section
        parts.append(Report(title, [*shown, *said.parts]))
    return Stage(parts, "; ".join(hints), pictures, late[:1]) if parts else None


def _finetuning(standing: Standing) -> Stage | None:
    """Phases, kept or not, their curves, and the scores before and after."""
    work = standing.work
    if not has_model(work.model):
        return None
    config = read_model_config(work.model)
    made = config["provenance"]
    phases = [
        PhaseResult.from_json({**one, "table": one["trainable"], "log": ()})
        for one in made["phases"]
    ]
    encoders = {name: made["encoders"][name] for name in config["encoders"]}
    parts: list[Part] = [
        f"The head of trial {made['trial']} and its encoders: "
        f"{encoders_text(encoders, config['layers'])}.",
        *caveats(encoders, synthetic=made["synthetic"]),
        phase_table(phases, standing.objective),
    ]
    known = {name: standing.known[name] for name in (HEAD, MODEL) if name in standing.known}
    if MODEL in known:
        classes = {name: own.classes for name, own in known.items() if own.classes}
        rated = {name: own.attributes for name, own in known.items() if own.attributes}
        parts += [scores_table("test", classes)] * bool(classes)
        parts += [attributes_table("test", rated, ())] * bool(rated)
    title = "Losses, development scores and learning rates by step"
    parts.append(_kept("finetune-curves", title, (6, 6)))
    late = standing.of_another(made["manifest_sha256"])
    search = study_of(work.search)
    if search and made.get("study") and made["study"] != search:
        late.append("its head is of another search than is there now")
    gained = [str(one.config.phase) for one in phases if one.best_epoch]
    hint = f"kept: phase {' and '.join(gained)}" if gained else "no phase gained anything"
    return Stage(parts, hint, {"finetune-curves": work.finetune / PICTURE}, late)


def _evaluation(standing: Standing) -> Stage | None:
    """Every evaluation that was written: confusion, reliability, groups."""
    work = standing.work
    parts: list[Part] = []
    late, hints, state = [], [], DONE
    for path in sorted(work.evaluation.glob(f"*/{REPORT}")):
        name = path.parent.name
        try:
            found = read_evaluation(path)
        except FAULTS as error:
            parts.append(f"{name} cannot be read: {error}")
            state = DAMAGED
            continue
        if is_own(work, found) and standing.of_another(found.manifest_sha256):
            late.append(f"{name} is of other rows than the manifest has now")
        elif not current(work, found):
            late.append(f"{name} is of an earlier {found.subject} than is there now")
        figures = [
            replace(one, name=f"{name}-{one.name}", title=f"{one.title}, {name}")
            for one in evaluation_figures(found, f"The {found.subject} on {found.split}")
        ]
        parts.append(Report(name, [*found.to_report().parts, *figures]))
        hints += [f"{name} {found.classes.macro_f1:.3f}"] if found.classes else []
    hint = f"macro-F1: {', '.join(hints)}" if hints else ""
    return Stage(parts, hint, late=late, state=state) if parts else None


def _explanation(standing: Standing) -> Stage | None:
    """What was found, and where its own page is."""
    work = standing.work
    path = work.explain / SUMMARY
    if not path.is_file():
        return None
    found = read_json(path, kind=FORMAT, version=VERSION)
    sections = [Report(title, data=data) for title, data in found["sections"].items()]
    rows = [(title, one.text) for title, one in findings_of(sections).items()]
    heads = [work.search / WEIGHTS, work.model / HEAD_FILE]
    heads += trial_file(work.search, 0).parent.glob("*.safetensors")
    fits = found["head_sha256"] in {file_sha256(one) for one in heads if one.is_file()}
    parts: list[Part] = [
        f"The {found['subject']} ({found['source']}) on {found['utterances']:,} utterances of "
        f"{found['corpus'] or 'no corpus'}, {found['split']}. The whole is in explain/{PAGE}.",
        *(f"{name.capitalize()}: {own['verdict']}" for name, own in tested(found).items()),
        Table("findings", ("analysis", "its strongest finding"), rows, "What was found"),
    ]
    late = ["it is about none of the heads that are there now"] * (not fits)
    return Stage(parts, count_text(len(rows), "finding"), late=late)


def tested(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the summary of an explanation, by modality the tests of its attention."""
    found: Mapping[str, Any] = summary.get("sections", {}).get(FAITHFULNESS, {})
    return {name: own for name, own in found.items() if name in MODALITIES}


def _provenance(standing: Standing) -> Stage:
    """A row a file: when it was written, with what, from which seed, of which rows, its digest."""
    work = standing.work
    paths = [work.manifest, work.manifest.with_suffix(".json"), work.extraction, work.layers]
    paths += [work.search / BEST, *sorted(work.compare.glob("*.json")), work.model / CONFIG]
    paths += [*sorted(work.evaluation.glob(f"*/{REPORT}")), work.explain / SUMMARY]
    rows = []
    for path in filter(Path.is_file, paths):
        value = attempt(partial(_making, path)) or {}
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        with_ = [f"{name} {own}" for name, own in value.get("versions", {}).items()]
        with_ += [str(value[name]) for name in ("device", "precision") if name in value]
        seed = value.get("seed", value.get("study_seed"))
        rows.append(
            (
                str(path.relative_to(work.root)),
                f"{written:%Y-%m-%d %H:%M}",
                ", ".join(with_) or None,
                seed if isinstance(seed, int) else None,
                str(value.get("manifest_sha256", ""))[:12] or None,
                file_sha256(path)[:12],
            )
        )
    columns = ("file", "written (UTC)", "with", "seed", "rows", "SHA-256")
    note = (
        "Rows: the digest of the utterances that it was made of. Digests by their first 12 digits. "
        "A dash: the file does not say. Commands as they were typed are not kept."
    )
    table = Table("", columns, rows, "Files", right=(3,), notes=[note])
    return Stage([table], count_text(len(rows), "file"))


def _making(path: Path) -> dict[str, Any]:
    """The entries of a JSON file and, above them, of what it says about its making."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else {}
    inner = [value.get(name) or {} for name in ("origin", "provenance", "settings")]
    return {**value, **inner[0], **inner[1], **inner[2], **inner[1].get("steps", {})}


def _kept(name: str, title: str, size: tuple[float, float] = (7.0, 4.0)) -> Figure:
    """A figure whose picture was kept: it is not drawn."""
    return Figure(name, lambda _: None, title, size)


STAGES: Mapping[str, tuple[str, Reader]] = {
    "Extraction": ("extract", _extraction),
    "Search": ("search", _search),
    "Comparison": ("compare", _comparison),
    "Fine-tuning": ("finetune --best", _finetuning),
    "Evaluation": ("evaluate", _evaluation),
    "Explanation": ("explain", _explanation),
    "Provenance": ("report", _provenance),
}
