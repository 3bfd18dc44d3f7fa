"""The stages of a work folder as sections of one page, of what each command left there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cache.keys import MODALITIES
from cache.lookup import FrameCache
from cache.upkeep.info import cache_info
from corpora.base.files import file_sha256, read_json
from corpora.base.report import Figure, Part, Report, Table, read_markdown
from corpora.base.terminal import count_text, time_text
from corpora.base.work import Work, command_line
from corpora.manifest import Manifest
from corpora.recordings import cut_seconds, read_headers
from corpora.summary import Tally
from explain.finding import findings_of
from explain.overview.provenance import provenance
from explain.overview.standing import (
    FAULTS,
    HEAD,
    MODEL,
    REGRESSION,
    Standing,
    current,
    is_own,
)
from explain.report.write import FORMAT, PAGE, SUMMARY, VERSION
from explain.trust import FAITHFULNESS
from finetune.assembly import check_streams
from finetune.curves import PICTURE
from finetune.evaluate.evaluation import (
    REPORT,
    Evaluation,
    caveats,
    confusion_figure,
    encoders_text,
    read_evaluation,
    reliability_figure,
)
from finetune.finetune import phase_table
from finetune.model_directory import read_model_config
from finetune.model_files import HEAD as HEAD_FILE
from finetune.model_files import has_model
from finetune.training import PhaseResult
from heads.attributes import attributes_table
from heads.layer_choice import LayerChoice, read_choices
from heads.metrics import scores_table
from heads.records import (
    BEST,
    PLOTS_FOLDER,
    WEIGHTS,
    as_learnt,
    manifest_digest,
    study_of,
    trial_file,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

DONE, MISSING, DAMAGED = "done", "missing", "damaged"


@dataclass(frozen=True, eq=False)
class Place:
    """A work folder with its manifest, and how good what it holds is."""

    work: Work
    manifest: Manifest
    standing: Standing
    show_progress: bool = False

    def of_another(self, digest: str) -> list[str]:
        """A reason for being out of date where this is not the digest of the manifest's rows."""
        record = self.standing.record
        # As classes, attributes or both are learnt from them.
        empty: Mapping[str, tuple[float, float]] = {}
        scales = (empty, self.manifest.scales, record.head.attributes if record else empty)
        known = {
            manifest_digest(as_learnt(self.manifest, labels), attributes)
            for labels in (self.manifest.labels, ())
            for attributes in scales
        }
        return ["it was made of other rows than the manifest has now"] * (digest not in known)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage on the page.

    Attributes:
        report: its section; of one line where it was not run or cannot be read.
        hint: beside the title: the gist.
        pictures: PNG or SVG files by figure name, of figures that are not drawn anew.
        late: why it is out of date; empty where it is not.
        state: `DONE`, `MISSING` or `DAMAGED`.
        command: that runs it.
    """

    report: Report
    hint: str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    late: Sequence[str] = ()
    state: str = DONE
    command: str = ""


def read_stages(place: Place) -> list[Stage]:
    """All stages in the order of use; what cannot be read is a line."""
    found = []
    for title, (words, read) in STAGES.items():
        command = command_line(words, place.work.root)
        try:
            stage = read(place)
        except FAULTS as error:
            said = f"Cannot be read: {error if str(error) else type(error).__name__}"
            stage = Stage(Report(parts=(said,)), state=DAMAGED)
        if stage is None:
            stage = Stage(Report(parts=(f"Not run yet: {command}",)), state=MISSING)
        parts: list[Part] = list(stage.report.parts)
        if stage.late:
            parts.insert(0, f"OUT OF DATE: {'; '.join(stage.late)}. Run again: {command}")
        found.append(replace(stage, report=Report(title, parts), command=command))
    return found


def _corpus(place: Place) -> Stage:
    """Utterances, labels, speakers, splits, lengths: as `prepare` counts them."""
    manifest = place.manifest
    rows = manifest.utterances
    headers = read_headers((u.audio for u in rows), show_progress=place.show_progress)
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
    return Stage(Report(parts=parts), ", ".join(counts))


def _extraction(place: Place) -> Stage | None:
    """Streams, how the layers were ranked, and what could not be used."""
    work = place.work
    if not work.extraction.is_file():
        return None
    cache = FrameCache(work)
    info = cache_info(work, place.manifest)
    parts: list[Part] = list(info.to_report().parts)
    failed = Counter(cache.failed.values())
    if failed:
        rows = [(reason, count) for reason, count in failed.most_common()]
        parts.append(Table("", ("reason", "utterances"), rows, "Could not be used", right=(1,)))
    sources = cache.sources.values()
    for choice in read_choices(work.layers).rankings.values():
        chosen = [
            s.best for s in sources if s.recipe.folder == choice.recipe and s.best is not None
        ]
        if chosen:
            draw = partial(_draw_layers, choice, chosen)
            title = f"How well each layer of {choice.encoder} tells the emotions apart"
            parts += [Figure(f"layers-{choice.kind}", draw, title, (7.0, 3.2))]
            parts += [choice.table(chosen)]
    names = [f"{one.recipe.kind} {encoder}" for one in sources if (encoder := one.encoder)]
    # Moments of other layers are those of a sample.
    read = [one for one in info.streams if one.last and one.layer is not None]
    lacking = max(((one.wanted or 0) - (one.present or 0) for one in read), default=0)
    late = [f"{lacking:,} inputs of the manifest are not in it"] * (lacking > len(cache.failed))
    return Stage(Report(parts=parts), ", ".join(names), late=late)


def _draw_layers(choice: LayerChoice, chosen: Sequence[int], canvas: Canvas) -> None:
    axes = canvas.add_subplot()
    layers = [one.layer for one in choice.scores]
    scores = [one.macro_f1 for one in choice.scores]
    held = {one.layer: one.interval for one in choice.scores if one.interval}
    if held:
        low, high = ([ends[side] for ends in held.values()] for side in (0, 1))
        axes.fill_between([*held], low, high, alpha=0.2, label="95 % interval")
    axes.plot(layers, scores, "o-", ms=4, label="macro-F1, speakers held out")
    axes.plot(
        chosen,
        [scores[layers.index(one)] for one in chosen],
        "o",
        ms=9,
        mfc="none",
        label="read by heads",
    )
    axes.axhline(choice.chance, color="0.5", ls=":", label="guessing")
    axes.set(xlabel="layer (hidden state)", ylabel="macro-F1", ylim=(0, 1))
    axes.set_xticks(layers[:: 1 + len(layers) // 25])
    canvas.legend(loc="outside upper center", ncols=4, fontsize="small")


def _search(place: Place) -> Stage | None:
    """The history of trials, what mattered, the winner beside the regression."""
    folder, standing = place.work.search, place.standing
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
    late += place.of_another(best.origin.manifest_sha256)
    try:
        check_streams(FrameCache(place.work), best)
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
    parts += [_kept(f"study-{one.stem}", f"The study: {one.stem}") for one in kept]
    parts += ["A database holds the study: `search --plots` draws it."] * (not trials and not kept)
    pictures = {f"study-{one.stem}": one.read_bytes() for one in kept}
    named = trial_title(best.start, best.params) or best.start
    score = f"{standing.objective} {best.dev_macro_f1:.3f} on {best.selected_on}"
    hint = f"{count_text(found.completed + found.halved, 'trial')}; best: {named}, {score}"
    return Stage(Report(parts=parts), hint, pictures, late)


def _comparison(place: Place) -> Stage | None:
    """The tables of `compare` and `compare --layers`, as they were written."""
    from heads.compare.passes import FORMAT as KIND
    from heads.compare.passes import VERSION as OF
    from heads.compare.rendering import PICTURES

    parts: list[Part] = []
    pictures, late, hints = {}, [], []
    for name, picture in PICTURES.items():
        path = place.work.compare / f"{name}.md"
        if not path.is_file():
            continue
        value = read_json(path.with_suffix(".json"), kind=KIND, version=OF)
        late += place.of_another(value["origin"]["manifest_sha256"])
        hints += [f"{one['name']}: {one['best_on_dev']} best on dev" for one in value["tables"]]
        found = read_markdown(path.read_text(encoding="utf-8"))
        drawn, kept = path.with_name(f"{picture}.png"), f"compare-{name}"
        shown = [_kept(kept, f"{found.title}: scores with intervals")] * drawn.is_file()
        if drawn.is_file():
            pictures[kept] = drawn.read_bytes()
        title = found.title if name == "layers" else ""  # that of the section
        parts.append(Report(title, [*shown, *found.parts]))
    return Stage(Report(parts=parts), "; ".join(hints), pictures, late[:1]) if parts else None


def _finetuning(place: Place) -> Stage | None:
    """Phases, kept or not, their curves, and the scores before and after."""
    work, standing = place.work, place.standing
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
    curves = work.finetune / PICTURE
    pictures = {"finetune-curves": curves.read_bytes()} if curves.is_file() else {}
    parts += [
        _kept("finetune-curves", "Losses, development scores and learning rates by step", (6, 6))
    ] * curves.is_file()
    late = place.of_another(made["manifest_sha256"])
    search = study_of(work.search)
    if search and made.get("study") and made["study"] != search:
        late.append("its head is of another search than is there now")
    gained = [str(one.config.phase) for one in phases if one.best_epoch]
    hint = f"kept: phase {' and '.join(gained)}" if gained else "no phase gained anything"
    return Stage(Report(parts=parts), hint, pictures, late)


def _evaluation(place: Place) -> Stage | None:
    """Every evaluation that was written: confusion, reliability, groups."""
    parts: list[Part] = []
    late, hints, state = [], [], DONE
    for path in sorted(place.work.evaluation.glob(f"*/{REPORT}")):
        try:
            found = read_evaluation(path)
        except FAULTS as error:
            parts.append(f"{path.parent.name} cannot be read: {error}")
            state = DAMAGED
            continue
        if is_own(place.work, found) and place.of_another(found.manifest_sha256):
            late.append(f"{path.parent.name} is of other rows than the manifest has now")
        elif not current(place.work, found):
            late.append(f"{path.parent.name} is of an earlier {found.subject} than is there now")
        name = path.parent.name
        parts.append(Report(name, [*found.to_report().parts, *_figures(found, name)]))
        if found.classes:
            hints.append(f"{name} {found.classes.macro_f1:.3f}")
    hint = f"macro-F1: {', '.join(hints)}" if hints else ""
    return Stage(Report(parts=parts), hint, late=late, state=state) if parts else None


def _figures(found: Evaluation, name: str) -> list[Figure]:
    figures = []
    if found.classes:
        own = confusion_figure(found.classes, f"The {found.subject} on {found.split}")
        figures.append(replace(own, name=f"{name}-confusion", title=f"Confusion matrix, {name}"))
    if found.calibration:
        own = reliability_figure(found.calibration, f"The {found.subject} on {found.split}")
        figures.append(replace(own, name=f"{name}-reliability", title=f"Reliability, {name}"))
    return figures


def _explanation(place: Place) -> Stage | None:
    """What was found, and where its own page is."""
    work = place.work
    path = work.explain / SUMMARY
    if not path.is_file():
        return None
    found = read_json(path, kind=FORMAT, version=VERSION)
    sections = [Report(title, data=data) for title, data in found["sections"].items()]
    rows = [(title, one.text) for title, one in findings_of(sections).items()]
    heads = [
        work.search / WEIGHTS,
        work.model / HEAD_FILE,
        *trial_file(work.search, 0).parent.glob("*.safetensors"),
    ]
    fits = found["head_sha256"] in {file_sha256(one) for one in heads if one.is_file()}
    parts: list[Part] = [
        f"The {found['subject']} ({found['source']}) on {found['utterances']:,} utterances of "
        f"{found['corpus'] or 'no corpus'}, {found['split']}. The whole is in explain/{PAGE}.",
        *(f"{name.capitalize()}: {own['verdict']}" for name, own in tested(found).items()),
        Table("findings", ("analysis", "its strongest finding"), rows, "What was found"),
    ]
    late = ["it is about none of the heads that are there now"] * (not fits)
    return Stage(Report(parts=parts), f"{count_text(len(rows), 'finding')}", late=late)


def tested(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the summary of an explanation, by modality the tests of its attention."""
    found: Mapping[str, Any] = summary.get("sections", {}).get(FAITHFULNESS, {})
    return {name: own for name, own in found.items() if name in MODALITIES}


def _provenance(place: Place) -> Stage:
    """Where the files come from, as far as they say."""
    table = provenance(place.work)
    return Stage(Report(parts=[table]), count_text(len(table.rows), "file"))


def _kept(name: str, title: str, size: tuple[float, float] = (7.0, 4.0)) -> Figure:
    """A figure whose picture was kept: it is not drawn."""
    return Figure(name, lambda _: None, title, size)


STAGES: Mapping[str, tuple[str, Callable[[Place], Stage | None]]] = {
    "Corpus": ("prepare", _corpus),
    "Extraction": ("extract", _extraction),
    "Search": ("search", _search),
    "Comparison": ("compare", _comparison),
    "Fine-tuning": ("finetune --best", _finetuning),
    "Evaluation": ("evaluate", _evaluation),
    "Explanation": ("explain", _explanation),
    "Provenance": ("report", _provenance),
}
