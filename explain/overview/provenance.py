"""What the files of a work folder say about where they come from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from corpora.base.files import file_sha256
from corpora.base.report import Table
from corpora.base.work import Work
from explain.overview.standing import attempt
from explain.report.write import SUMMARY
from finetune.evaluate.evaluation import REPORT
from finetune.model_files import CONFIG
from heads.records import BEST


def provenance(work: Work) -> Table:
    """A row a file: when it was written, with what, from which seed, of which rows, its digest."""
    paths = [work.manifest, work.manifest.with_suffix(".json"), work.extraction, work.layers]
    paths += [work.search / BEST, *sorted(work.compare.glob("*.json")), work.model / CONFIG]
    paths += [*sorted(work.evaluation.glob(f"*/{REPORT}")), work.explain / SUMMARY]
    rows = []
    for path in filter(Path.is_file, paths):
        value = attempt(partial(_entries, path)) or {}
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        versions = [f"{name} {own}" for name, own in value.get("versions", {}).items()]
        seed = value.get("seed", value.get("study_seed"))
        where = [str(value[name]) for name in ("device", "precision") if name in value]
        rows.append(
            (
                str(path.relative_to(work.root)),
                f"{written:%Y-%m-%d %H:%M}",
                ", ".join(versions + where) or None,
                seed if isinstance(seed, int) else None,
                str(value.get("manifest_sha256", ""))[:12] or None,
                file_sha256(path)[:12],
            )
        )
    columns = ("file", "written (UTC)", "with", "seed", "rows", "SHA-256")
    notes = [
        "Rows: the digest of the utterances that it was made of. Digests by their first 12 digits. "
        "A dash: the file does not say. Commands as they were typed are not kept."
    ]
    return Table("", columns, rows, "Files", right=(3,), notes=notes)


def _entries(path: Path) -> dict[str, Any]:
    """The entries of a JSON file and, above them, of what it says about its making."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else {}
    inner = [value.get(name) or {} for name in ("origin", "provenance", "settings")]
    steps = inner[1].get("steps", {})
    return {**value, **inner[0], **inner[1], **inner[2], **steps}
