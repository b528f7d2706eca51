"""`flavour-sd build`: draw all rows of a plan into a folder, over processes and interruptions, with one result."""

import json
from collections import Counter
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder import columns
from dataset_builder.building.corrections import corrections_line
from dataset_builder.building.finished_build import write_lexicon
from dataset_builder.building.parts import Part, refuse_missing
from dataset_builder.building.plan import GIVEN_UP, SCHEMA_VERSION, Plan
from dataset_builder.building.settings import GENERATED, OWN, BuildSettings
from dataset_builder.building.shards import BuildFolder, write_table
from dataset_builder.engines.choice import LOCAL, engine_named
from dataset_builder.engines.local import LocalEngine
from dataset_builder.engines.ranks import is_launched, launched_state
from dataset_builder.engines.work import Engine
from dataset_builder.errors import BadInputError
from dataset_builder.hub_files import sha256_of
from dataset_builder.labelling.report import NOT_CALIBRATED
from dataset_builder.messages import shown
from dataset_builder.pictures.settings import PLATING, GenerationSettings
from dataset_builder.storage.places import files_in, is_of_this_process, make_folder, opened, place

LIBRARIES = ("diffusers", "torch", "transformers", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True)
class HowToBuild:
    """How a build is run, which changes nothing in its result.

    Attributes:
        processes: workers; None is one per core for plating and one for any other pipeline, with Ray one per core or
            GPU of the cluster.
        engine: "local" or "ray".
        address: of a Ray cluster.
        part: of a build that is drawn in parts, `I/N`; None draws all of it.
        finish: check that all parts are there and write the manifest.
        fresh: replace the build that is in the folder; it stays until the new one has its first shard.
        verify: compare every byte of a finished build with the hashes in its manifest; sizes are always compared, and
            a shard that is missing or damaged is drawn again.
    """

    processes: int | None = None
    engine: str = LOCAL
    address: str | None = None
    part: str | None = None
    finish: bool = False
    fresh: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        launched = is_launched()
        if launched and self.processes not in (None, 1):
            raise BadInputError(
                f"the launcher decides how many processes there are; leave --processes {self.processes} out"
            )
        if launched and (self.engine != LOCAL or self.part or self.finish):
            raise BadInputError("a launcher runs all parts itself; leave --engine, --part and --finish out, or it")
        if self.part is not None and (self.finish or self.fresh or self.verify):
            raise BadInputError(
                "--part draws beside other parts; leave --finish, --fresh and --verify out, and give them later"
            )
        if self.finish and self.fresh:
            raise BadInputError("--finish keeps what the parts drew; leave --fresh out")


def build(
    settings: BuildSettings,
    out: Path,
    processes: int | None = None,
    fresh: bool = False,
    verify: bool = False,
    **how: Any,
) -> dict[str, Any]:
    """Build the data set, or go on with an interrupted build; the result is the same, however it is run.

    Under `accelerate launch` (or torchrun) the shards are spread over its processes, which must share the folder.

    Args:
        settings: of the rows.
        out: folder of the result: `data/*.parquet` and `manifest.json`.
        processes, fresh, verify, how: see `HowToBuild`.

    Returns:
        The manifest; empty for a part of a build that is not finished.

    Raises:
        BadInputError: settings or recipes that cannot be used, a folder that holds something else, or missing parts.
    """
    run = HowToBuild(processes=processes, fresh=fresh, verify=verify, **how)
    engine = engine_named(run.engine, run.address, processes)
    folder = BuildFolder(out)
    if run.part is not None:
        return _build_part(settings, folder, run, engine)
    state = launched_state() if is_launched() else None
    is_main = state is None or state.is_main_process
    try:
        # Only the main process plans, prepares the folder and finishes it; the others wait for either.
        if is_main:
            folder.lock()
            plan = Plan(settings, folder.plan, _planning_engine(run, engine))
            folder.open(plan.fingerprint, fresh, verify)
            if folder.manifest() is None:
                plan.keep(folder.plan)
        # Imported now: torch takes more memory than the plan of a million recipes.
        from dataset_builder.building.drawing import draw_shards

        if state is not None:
            state.wait_for_everyone()
            if not is_main:
                plan = Plan(settings, folder.plan)
                folder.check(plan.fingerprint)
            # Shards are dealt out in turn.
            mine = Part(state.process_index + 1, state.num_processes).of(plan.shards())
            draw_shards(plan, folder, mine, LocalEngine(1), state.device, show_progress=is_main)
            state.wait_for_everyone()
        elif not run.finish:
            draw_shards(plan, folder, plan.shards(), _drawing_engine(settings, folder, run, engine))
        if is_main and folder.manifest() is None:
            refuse_missing(folder, plan.shards())
            manifest = make_manifest(plan, folder)
            write_lexicon(folder.root, plan.lexicon)
            folder.finish(manifest)
        if state is not None:
            state.wait_for_everyone()
        return folder.manifest() or {}
    finally:
        folder.close()


def _build_part(settings: BuildSettings, folder: BuildFolder, run: HowToBuild, engine: Engine) -> dict[str, Any]:
    """Draw one part of a build, beside others."""
    part = Part.parse(str(run.part))
    plan = Plan(settings, folder.plan, _planning_engine(run, engine))
    folder.join(plan.fingerprint, str(part))
    finished = folder.manifest()
    if finished is not None:
        return finished
    plan.keep(folder.plan)
    from dataset_builder.building.drawing import draw_shards

    draw_shards(plan, folder, part.of(plan.shards()), _drawing_engine(settings, folder, run, engine))
    return {}


def _planning_engine(run: HowToBuild, engine: Engine) -> Engine | None:
    """Return the engine that labels, on this machine; None, which suits the size of the table, by default."""
    return engine if run.engine == LOCAL and run.processes is not None else None


def _drawing_engine(settings: BuildSettings, folder: BuildFolder, run: HowToBuild, engine: Engine) -> Engine:
    """Return the engine that draws: of several processes with one model each only where the user wants them."""
    if is_of_this_process(folder.root):
        return LocalEngine(1)
    alone = run.engine == LOCAL and run.processes is None and settings.generation.pipeline != PLATING
    return LocalEngine(1) if alone else engine


def make_manifest(plan: Plan, folder: BuildFolder) -> dict[str, Any]:
    """Return the manifest of a build whose shards are all there, read from the shards themselves."""
    counts = {split: dict.fromkeys(columns.FLAVOURS, 0) for split in columns.SPLITS}
    shards: dict[str, int] = {}
    given_up: dict[str, list[str]] = {}
    rejected: Counter[str] = Counter()
    attempts: Counter[int] = Counter()
    cut = 0
    for shard in plan.shards():
        path = folder.data / shard.file_name
        try:
            with opened(path) as stream:
                table = pq.ParquetFile(stream).read([columns.FLAVOUR, columns.GENERATION])
        except pa.ArrowInvalid as error:
            raise BadInputError(f"{path} is damaged ({error}); remove it and repeat the command") from error
        shards[shard.file_name] = table.num_rows
        # Counts come from the shards, not from the plan, since rows may have been given up.
        for flavour in table[columns.FLAVOUR].to_pylist():
            counts[shard.split][columns.FLAVOURS[flavour]] += 1
        # A shard's metadata name its rows whose pictures were all rejected.
        refused = json.loads((table.schema.metadata or {}).get(GIVEN_UP, b"{}"))
        given_up |= refused
        records = table[columns.GENERATION].to_pylist()
        attempts.update(record["attempts"] for record in records)
        cut += sum(record["prompt_read"] is not None for record in records)
        for reasons in (*refused.values(), *(record["rejected"] for record in records)):
            rejected.update(reason.split(" (")[0].split(" of ")[0] for reason in reasons)
    empty = [split for split, labels in counts.items() if len(plan.recipes[split]) and not any(labels.values())]
    if empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
        raise BadInputError(
            f"every picture of {', '.join(empty)} was given up (rejected: {reasons}); "
            "change the pipeline or the recipes"
        )
    settings, sizes = plan.fingerprint, files_in(folder.data)
    return {
        "finished": True,
        "schema_version": SCHEMA_VERSION,
        "builder": f"flavour-fusion {version('flavour-fusion')}",
        "generator": {entry.name: settings.get(entry.name) for entry in fields(GenerationSettings)},
        "simulator": settings["pipeline"] == PLATING and plan.settings.pictures != OWN,
        **({} if plan.settings.pictures == GENERATED else {"pictures": plan.settings.pictures}),
        "seeds": {"build": settings["seed"]},
        "lexicon_sha256": settings["lexicon_sha256"],
        "soft_labels_calibrated": plan.calibrated,
        "recipes_sha256": settings["recipes_sha256"],
        "rows": sum(shards.values()),
        "counts": counts,
        "shards": shards,
        "hashes": {name: {"bytes": sizes[name], "sha256": sha256_of(folder.data / name)} for name in shards},
        "skipped_recipes": {
            reason: {"count": left_out.count, "names": left_out.names} for reason, left_out in plan.skipped.items()
        },
        **({"notes": list(plan.notes)} if plan.notes else {}),
        **({"corrections": plan.corrections} if plan.corrections else {}),
        "given_up": given_up,
        "rejected": dict(sorted(rejected.items())),
        "prompts_cut": cut,
        "attempts": {str(number): attempts[number] for number in sorted(attempts)},
        "libraries": {name: version(name) for name in LIBRARIES},
        "settings": settings,
    }


def summary(manifest: dict[str, Any], out: Path) -> str:
    """Return the summary of a finished build for the terminal."""
    lines = [*manifest.get("notes", []), f"{manifest['rows']} rows in {out}"]
    for split, labels in manifest["counts"].items():
        parts = ", ".join(f"{flavour} {count}" for flavour, count in labels.items())
        lines.append(f"  {split:<10} {sum(labels.values()):>6}  ({parts})")
    for reason, recipes in manifest["skipped_recipes"].items():
        lines.append(f"left out {reason}: {recipes['count']} recipes ({_some(recipes['names'], recipes['count'])})")
    for reason, count in manifest["rejected"].items():
        lines.append(f"rejected, {reason}: {count} pictures")
    if "corrections" in manifest:
        lines.append(f"corrections by people: {corrections_line(manifest['corrections'])}")
    if not manifest.get("soft_labels_calibrated", True):
        lines.append(NOT_CALIBRATED)
    if manifest["prompts_cut"]:
        lines.append(
            f"longer than the text encoder reads: the prompts of {manifest['prompts_cut']} pictures; "
            "generation.prompt_read holds the part that was read, captions name no more; --prompt title is shorter"
        )
    if manifest["given_up"]:
        names = list(manifest["given_up"])
        lines.append(f"given up after every attempt was rejected: {len(names)} rows ({_some(names, len(names))})")
    return "\n".join(lines)


def _some(names: list[str], count: int, most: int = 5) -> str:
    more = f" and {count - most} more, see manifest.json" if count > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more


def draw_one(settings: BuildSettings, out: Path, row_id: str) -> tuple[Path, str | None]:
    """Draw one row again, alone.

    Args:
        settings: those of the build.
        out: its folder; it may be empty, then there is nothing to compare with.
        row_id: id of the row.

    Returns:
        The Parquet file with the row, `out/only/ID.parquet`, and how it compares with the row in the build: "equal", or
        the columns that differ; None when the build does not hold the row.

    Raises:
        BadInputError: an unknown id, settings other than those of the build, or a picture that is rejected every time.
    """
    plan = Plan(settings)
    out = place(out)
    folder = BuildFolder(out)
    folder.check(plan.fingerprint)
    shard, group = plan.find(row_id)
    # The whole group is drawn, as pictures of one batch may influence one another's rounding and rejection.
    drawn = {name: (row, picture) for name, row, picture in plan.draw(group, plan.illustrator())}
    row, picture = drawn[row_id]
    if row is None:
        raise BadInputError(f"every picture of {row_id} was rejected: {'; '.join(picture.generation['rejected'])}")
    table = pa.Table.from_pylist([row], schema=plan.schema)
    path = out / "only" / f"{row_id}.parquet"
    make_folder(path.parent)
    write_table(path, table)
    if shard.file_name not in folder.finished():
        return path, None
    with opened(folder.data / shard.file_name) as stream:
        known = pq.read_table(stream, filters=[(columns.ID, "=", row_id)])
    if not known.num_rows:
        return path, None
    differing = [name for name in table.column_names if table[name].to_pylist() != known[name].to_pylist()]
    return path, f"different in {', '.join(differing)}" if differing else "equal"
