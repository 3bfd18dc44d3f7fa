"""The commands of this floor: texts, the upkeep of the cache, and a look at a corpus."""

from __future__ import annotations

from pathlib import Path

import click

from cache.config import TranscribeConfig
from cache.keys import MODALITIES
from corpora.base.command_options import (
    File,
    json_option,
    manifest_option,
    options,
    show,
    work_option,
)
from corpora.base.work import Work


@click.command()
@options(TranscribeConfig)
@manifest_option
@json_option
@work_option
def transcribe(
    config: TranscribeConfig, manifest_path: Path | None, as_json: bool, work: Work
) -> None:
    """Fill in missing texts with Whisper; human texts stay.

    Texts go into the manifest that is read, with their text_source; the manifest before is kept
    beside it. Stop it and start it as you like: WORK/transcripts.sqlite has what was heard.
    """
    from cache.transcribe.transcribe import transcribe as run

    report = run(
        work,
        manifest_path or work.manifest,
        config,
        tell=None if as_json else lambda line: click.echo(line, err=True),
        show_progress=not as_json,
    )
    show(report.to_json(), report.to_text(), as_json)


@click.command()
@click.argument("manifest", type=File, required=False)
@click.option(
    "--no-audio",
    is_flag=True,
    help="Open no recording: tell only what manifest and cache know already.",
)
@json_option
@work_option
@click.pass_context
def check(
    ctx: click.Context, manifest: Path | None, no_audio: bool, as_json: bool, work: Work
) -> None:
    """Look at MANIFEST (default: WORK/manifest.csv): lengths, clipping, duplicates, leakage.

    Exits with 1 where something has to be mended.
    """
    from cache.upkeep.check_corpus import check_corpus
    from corpora.manifest import read_manifest

    path = manifest or work.manifest
    found = check_corpus(
        work, read_manifest(path), path, audio=not no_audio, show_progress=not as_json
    )
    show(found.to_json(), found.to_text(), as_json)
    if not found.ok:
        ctx.exit(1)


@click.group()
def cache() -> None:
    """Look at the frame cache, check it, and keep it tidy."""


@cache.command()
@manifest_option
@json_option
@work_option
def info(manifest_path: Path | None, as_json: bool, work: Work) -> None:
    """List the streams: encoder, layer, versions, utterances, hours, bytes, completeness."""
    from cache.upkeep.info import cache_info
    from corpora.manifest import read_manifest

    path = manifest_path or work.manifest
    found = cache_info(work, read_manifest(path) if path.is_file() or manifest_path else None)
    show(found.to_json(), found.to_text(), as_json)


@cache.command()
@click.argument("url", required=False)
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="What copies of frames that lie there may take here.  [default: as before, or 50]",
)
@json_option
@work_option
def connect(url: str | None, limit: float | None, as_json: bool, work: Work) -> None:
    """Keep the cache in an object store: s3://, gs:// or az://BUCKET/PREFIX (docs/scale.md).

    WORK remembers the URL, and all commands go by it. Parts go there when they are made; frames
    come when they are read. Without a URL, what only is here is sent, and both are compared.
    """
    from cache.store.mirror import connect as run

    found = run(work, url, None if limit is None else round(limit * 1e9))
    show(found.to_json(), found.to_text(), as_json)


@cache.command()
@click.option("--fix", is_flag=True, help="Drop damaged parts, so that extract fills them again.")
@manifest_option
@json_option
@work_option
@click.pass_context
def verify(
    ctx: click.Context, fix: bool, manifest_path: Path | None, as_json: bool, work: Work
) -> None:
    """Check presence, sizes, checksums and numbers of every part; exit 1 if anything is wrong."""
    from cache.upkeep.verify import verify as run

    report = run(work, fix=fix, manifest=manifest_path, show_progress=not as_json)
    show(report.to_json(), report.to_text(manifest_path), as_json)
    if not report.ok:
        ctx.exit(1)


@cache.command()
@click.option(
    "--keep",
    "keep",
    type=File,
    multiple=True,
    metavar="MANIFEST",
    help="Keep what this manifest uses; repeatable.  [default: WORK/manifest.csv]",
)
@click.option(
    "--last-only", is_flag=True, help="Drop recipes that the last extract did not ask for, too."
)
@click.option("--yes", is_flag=True, help="Delete without asking.")
@json_option
@work_option
def prune(keep: tuple[Path, ...], last_only: bool, yes: bool, as_json: bool, work: Work) -> None:
    """Drop streams and parts that none of the named manifests use, after saying what.

    Unfinished files that killed commands left anywhere in the work folder go with them, unasked.
    """
    from cache.upkeep.prune import apply, prune_plan
    from corpora.base.files import sweep_below

    plan = prune_plan(work, keep or (work.manifest,), last_only=last_only)
    asked = bool(plan.parts) and (yes or not as_json)
    if not as_json or not asked:
        show(plan.to_json(), plan.to_text(), as_json)
    # Whoever writes into a folder sweeps it; this is for those that nobody writes into again. What
    # is under way in the cache has a place of its own, which was cleared.
    if (yes or not as_json) and (swept := sweep_below(work.root, work.features)):
        left = "1 unfinished file or folder" if swept == 1 else f"{swept:,} unfinished files"
        click.echo(f"Removed {left} that killed commands left in {work.root}.", err=True)
    if not asked or not (yes or click.confirm("Delete these?")):
        return
    done = apply(work, plan)
    show(done.to_json(), f"Freed {done.nbytes:,} bytes.", as_json)


@cache.command()
@json_option
@work_option
def compact(as_json: bool, work: Work) -> None:
    """Merge small parts into large ones; new ones are written before old ones go."""
    from cache.upkeep.compact import compact as run

    report = run(work, show_progress=not as_json)
    show(report.to_json(), report.to_text(), as_json)


@cache.command(name="export")
@click.argument("path", type=File)
@click.option("--format", "file_format", type=click.Choice(["hdf5"]), default="hdf5")
@manifest_option
@json_option
@work_option
def export_cache(
    path: Path, file_format: str, manifest_path: Path | None, as_json: bool, work: Work
) -> None:
    """Write all streams to PATH, one HDF5 data set an utterance, with keys and labels."""
    from cache.hdf5 import export_hdf5
    from corpora.manifest import read_manifest

    named = manifest_path or work.manifest
    manifest = read_manifest(named) if named.is_file() or manifest_path else None
    report = export_hdf5(work, path, manifest, show_progress=not as_json)
    show(report.to_json(), report.to_text(), as_json)


@cache.command(name="import")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(MODALITIES),
    default="audio",
    show_default=True,
    help="Of a folder: what its frames are of.",
)
@click.option("--name", default="", help="Of a folder: what to call the encoder.")
@click.option("--layer", default=0, show_default=True, help="Of a folder: the layer's number.")
@click.option("--fps", type=float, help="Of a folder: frames a second (video needs this or times).")
@click.option(
    "--times",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Of a folder: another one, of ID.npy with the time of each frame in seconds.",
)
@manifest_option
@json_option
@work_option
def import_cache(
    path: Path,
    kind: str,
    name: str,
    layer: int,
    fps: float | None,
    times: Path | None,
    manifest_path: Path | None,
    as_json: bool,
    work: Work,
) -> None:
    """Add the frames in PATH: an HDF5 file of `cache export`, or a folder of ID.npy or ID.pt."""
    from cache.folder_import import import_folder
    from cache.hdf5 import import_hdf5
    from corpora.manifest import read_manifest

    if path.is_dir():
        manifest = read_manifest(manifest_path or work.manifest)
        adopted = import_folder(
            work,
            manifest,
            path,
            kind,
            name=name,
            layer=layer,
            fps=fps,
            times=times,
            show_progress=not as_json,
        )
        show(adopted.to_json(), adopted.to_text(manifest_path), as_json)
    else:
        report = import_hdf5(work, path, show_progress=not as_json)
        show(report.to_json(), report.to_text(), as_json)
