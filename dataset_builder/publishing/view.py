"""`flavour-sd view`: one self-contained page about a build or an import."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Features, Image

from dataset_builder import columns
from dataset_builder.building.corrections import corrections_in_words
from dataset_builder.building.finished_build import read_build
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_whole
from dataset_builder.importers.table import UNREADABLE
from dataset_builder.pictures.photographs import as_rgb
from dataset_builder.publishing.audit import AUDIT_VERSION, Audit, kept_audit
from dataset_builder.publishing.publish import left_out
from dataset_builder.publishing.publish_imported import imported_shards, is_imported
from dataset_builder.publishing.review import ALIKE, Reviewed, reviewed, rows_of_file
from model_cards.pages import MOST_BYTES, inline, render_page

SHEET = 36  # pictures of the contact sheet
LISTED = 24  # rows of each list
PROMPTS = 8
SIDE = 200  # pixels of a picture
_LABEL_NAMES = 12  # labels of an imported set that are shown one by one


@dataclass(frozen=True)
class Source:
    """What is shown: files per split, their columns, and the manifest of a build ({} for an import)."""

    shards: Mapping[str, Sequence[Path]]
    features: Features
    manifest: Mapping[str, Any]

    @property
    def total(self) -> int:
        """Rows of all files."""
        return sum(pq.read_metadata(path).num_rows for paths in self.shards.values() for path in paths)

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield split and row, flavours as names."""
        for split, paths in self.shards.items():
            for path in paths:
                yield from ((split, row) for row in rows_of_file(path, self.features))


def view(folder: str | Path, out: str | Path) -> str:
    """Write the page.

    Args:
        folder: of a finished build, or the result of an import.
        out: HTML file.

    Returns:
        One line for the terminal.

    Raises:
        BadInputError: the folder holds neither, or a shard cannot be read.
    """
    out = Path(out)
    if out.is_dir():
        raise BadInputError(f"--out {out} is a folder; name the file that is written, such as report.html")
    source = _source(Path(folder))
    page = render_page("data_report.html", report_values(Path(folder), source))
    if len(page.encode()) > MOST_BYTES:
        raise BadInputError(f"the page has more than {MOST_BYTES // 10**6} MB; this is a fault of the package")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda path: path.write_text(page, encoding="utf-8"))
    return f"{out}: {source.total:,} rows on one page of {out.stat().st_size / 1e6:.1f} MB, which needs no network"


def _source(folder: Path) -> Source:
    if is_imported(folder):
        shards: dict[str, list[Path]] = {}
        for path in imported_shards(folder):
            shards.setdefault(path.name.split("-")[0], []).append(path)
        first = next(iter(shards.values()))[0]
        return Source(shards, Features.from_arrow_schema(pq.read_schema(first)), {})
    build = read_build(folder)
    return Source(build.shards, build.features, build.manifest)


def report_values(folder: Path, source: Source) -> dict[str, Any]:
    """Return the facts that the page names."""
    total, manifest = source.total, source.manifest
    balance: dict[str, Counter[str]] = {split: Counter() for split in source.shards}
    sources: Counter[str] = Counter()
    prompts: dict[str, None] = {}
    kept: dict[str, dict[str, str]] = {}
    every = max(1, total // SHEET)

    def counted() -> Iterator[tuple[str, dict[str, Any]]]:
        for place, (split, row) in enumerate(source.rows()):
            for label in _labels(row, source.features):
                balance[split][label] += 1
            sources[row.get(columns.LABEL_SOURCE) or ""] += 1
            prompt = (row.get(columns.GENERATION) or {}).get("prompt")
            if prompt and len(prompts) < PROMPTS and place % every == 0:
                prompts[prompt] = None
            if place % every == 0 and len(kept) < SHEET:
                kept[row[columns.ID]] = shown_row(row, split)
            yield split, row

    found = [one for one in reviewed(counted(), total) if one.reasons]
    found.sort(key=lambda one: (-one.worth, one.cells[columns.ID]))
    alike = [one for one in found if any(reason.startswith(ALIKE) for reason in one.reasons)]
    chosen, copies = found[:LISTED], alike[:LISTED]
    pictures = _pictures(source, {one.cells[columns.ID] for one in (*chosen, *copies)})
    audit = _audit_lines(folder)
    dishes = manifest.get("settings", {}).get("recipes") or ("the embedded catalogue" if manifest else "an import")
    return {
        "title": folder.resolve().name,
        "lead": _lead(manifest, total, dishes),
        "footer": f"Written by flavour-sd view from {folder.resolve().name}; nothing on this page is fetched.",
        "numbers": {
            "rows": total,
            **{f"rows of {split}": sum(pq.read_metadata(path).num_rows for path in paths)
               for split, paths in source.shards.items()},
            "rows to look at": len(found),
        },
        "flavours": FLAVOURS,
        "balance": {split: _ordered(counts) for split, counts in balance.items() if counts},
        "sources": {name: count for name, count in sources.most_common() if name},
        "corrections": list(corrections_in_words(manifest.get("corrections") or {"rows": {}}))[:LISTED],
        "sheet": list(kept.values()) if columns.IMAGE in source.features else [],
        "doubtful": [_listed(one, pictures) for one in chosen],
        "doubts": len(found),
        "alike": [_listed(one, pictures) for one in copies],
        "alikes": len(alike),
        "prompts": list(prompts),
        "rejected": manifest.get("rejected", {}),
        "given_up": dict(list(manifest.get("given_up", {}).items())[:LISTED]),
        "left_out": left_out(manifest),
        "audit": audit,
    }  # fmt: skip


def _lead(manifest: Mapping[str, Any], total: int, recipes: str) -> str:
    if not manifest:
        return f"{total:,} rows of an imported set; labels and pictures are those of its source."
    drawn = "plates drawn by a simulator, not photographs" if manifest.get("simulator") else "pictures"
    return f"{total:,} {drawn}, of recipes of {recipes}, labelled by a rule and split by dish."


def _labels(row: Mapping[str, Any], features: Features) -> list[str]:
    """Return the labels of a row: its flavour, or those of an imported set."""
    if row.get(columns.FLAVOUR):
        return [row[columns.FLAVOUR]]
    for name in (columns.LABEL, columns.LABELS):
        value = row.get(name)
        if value is None:
            continue
        feature = features[name]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        values = value if isinstance(value, list) else [value]
        return [names[one] if names and isinstance(one, int) and 0 <= one < len(names) else str(one) for one in values]
    return []


def _ordered(counts: Counter[str]) -> dict[str, int]:
    if set(counts) <= set(FLAVOURS):
        return {name: counts[name] for name in FLAVOURS}
    first = counts.most_common(_LABEL_NAMES)
    rest = counts.total() - sum(count for _, count in first)
    return {**dict(first), **({"other labels": rest} if rest else {})}


def _listed(one: Reviewed, pictures: Mapping[str, str]) -> dict[str, Any]:
    cells = one.cells
    row_id = cells[columns.ID]
    title = cells[columns.TITLE] or row_id
    return {
        "id": row_id, "title": title, "split": cells["split"], "flavour": cells[columns.FLAVOUR],
        "reasons": one.reasons, "picture": pictures.get(row_id, ""),
    }  # fmt: skip


def shown_row(row: Mapping[str, Any], split: str) -> dict[str, str]:
    """Return a row of the contact sheet."""
    captions = row.get(columns.CAPTIONS) or [""]
    title = row.get(columns.TITLE) or captions[0] or row[columns.ID]
    flavour = row.get(columns.FLAVOUR) or ""
    return {"id": row[columns.ID], "title": title, "split": split, "flavour": flavour, "picture": small_picture(row)}


def small_picture(row: Mapping[str, Any]) -> str:
    """Return the picture of a row as an address of a few kilobytes; empty where there is none that can be read."""
    stored = row.get(columns.IMAGE)
    if not stored:
        return ""
    try:
        picture = as_rgb(Image().decode_example(stored))
    except UNREADABLE:
        return ""
    picture.thumbnail((SIDE, SIDE))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=80)
    return inline(encoded.getvalue())


def _pictures(source: Source, wanted: set[str]) -> dict[str, str]:
    return {row[columns.ID]: small_picture(row) for _, row in source.rows() if row[columns.ID] in wanted}


def _audit_lines(folder: Path) -> list[str]:
    """Return the lines of an audit that lies beside the build; one of another form, or changed by hand, is left out."""
    facts = kept_audit(folder)
    return Audit(facts).lines if facts and facts.get("audit_version") == AUDIT_VERSION else []
