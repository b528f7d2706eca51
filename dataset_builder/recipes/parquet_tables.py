"""Parquet tables, read in bounded memory whatever their cells hold."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown
from dataset_builder.recipes.containers import Source
from dataset_builder.recipes.table_file import FIRST_ROWS, Row, TableFile

# What a batch of the wanted columns may take in memory before any value becomes a Python object.
_BATCH_BYTES = 64 << 20
LARGEST_CELL = 16 << 20
_DEEPEST = 32


class ParquetFile(TableFile):
    """A Parquet file; of nested columns all levels are read."""

    def __init__(self, source: Source):
        self.name, self.folder, self._source = source.name, source.path.parent, source
        with self._open() as file:
            self.columns = tuple(file.schema_arrow.names)
            self.size = file.metadata.num_rows

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the named columns of every row, from the start."""
        self.position = 0
        with self._open() as file:
            for name in columns:
                if self.columns.count(name) > 1:
                    raise BadInputError(
                        f"{self.name} has the column {shown(name)} {self.columns.count(name)} times; "
                        "rename or drop one of them"
                    )
            fields = [file.schema_arrow.field(name) for name in columns]
            rows = self._rows_per_batch(file)
            # Texts that repeat are kept once, so that a short file cannot become long in memory.
            once = [field.name for field in fields if _is_text(field.type)]
            with self._open(read_dictionary=once) as reader:
                for batch in reader.iter_batches(rows, columns=list(columns)):
                    yield from self._converted(batch, fields)

    def _rows_per_batch(self, file: pq.ParquetFile) -> int:
        """Return how many rows fit a batch, by the sizes that the file itself states.

        Of whole row groups: what a damaged file says of single columns ends the process where pyarrow is asked for it.
        """
        rows = FIRST_ROWS
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            cells = max(1, group.num_rows) * max(1, group.num_columns)
            # A few enormous cells: the average says so before any of them is read.
            if group.total_byte_size > LARGEST_CELL * cells:
                raise BadInputError(
                    f"{self.name}: {cells} cells of it take {group.total_byte_size >> 20} MB, and one is larger than "
                    f"{LARGEST_CELL >> 20} MB; remove it, no recipe is so long"
                )
            rows = min(rows, max(1, _BATCH_BYTES * max(1, group.num_rows) // max(1, group.total_byte_size)))
        return rows

    def _converted(self, batch: pa.RecordBatch, fields: Sequence[pa.Field]) -> Iterator[Row]:
        """Yield the named columns of every row, from the start."""
        # Converted by Arrow before any value becomes a Python object, some rows at a time.
        arrays = [batch.column(batch.schema.get_field_index(field.name)) for field in fields]
        largest = max(
            (self._largest(array, field.name) for array, field in zip(arrays, fields, strict=True)), default=1
        )
        step = max(1, min(FIRST_ROWS, _BATCH_BYTES // max(1, largest)))
        for start in range(0, batch.num_rows, step):
            columns = [_as_python(array.slice(start, step)) for array in arrays]
            for cells in zip(*columns, strict=True):
                self.position += 1
                yield {field.name: cell for field, cell in zip(fields, cells, strict=True)}

    def _largest(self, array: pa.Array, name: str) -> int:
        texts = array.dictionary if isinstance(array, pa.DictionaryArray) else array
        while pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type):
            texts = texts.flatten()
        if not (_is_text(texts.type) and len(texts)):
            return 1
        largest = pc.max(pc.binary_length(texts)).as_py() or 1
        if largest > LARGEST_CELL:
            raise BadInputError(
                f"{self.name}: a cell of the column {shown(name)} is larger than {LARGEST_CELL >> 20} MB; remove it, "
                "no recipe is so long"
            )
        return largest

    @contextmanager
    def _open(self, read_dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
        """Open the file; inside the block, whatever Arrow cannot read is reported as a damaged file."""
        try:
            whole = self._source.whole()
            # As a stream: Arrow would take a name such as a:b for an address.
            stream = pa.OSFile(str(whole)) if isinstance(whole, Path) else whole
            with pq.ParquetFile(stream, read_dictionary=list(read_dictionary)) as file:
                for field in file.schema_arrow:
                    if _depth(field.type) > _DEEPEST:
                        raise BadInputError(
                            f"{self.name}: the column {shown(field.name)} is nested more than {_DEEPEST} levels deep; "
                            "flatten it"
                        )
                yield file
        except UnicodeDecodeError as error:
            raise BadInputError(f"{self.name} holds text that is not in UTF-8: {error}; write it again") from error
        # Values that Arrow holds but Python does not, such as years beyond 9999 and time zones without a clock.
        except (OverflowError, KeyError, TypeError) as error:
            raise BadInputError(
                f"{self.name} holds a value that cannot be read ({shown(error, 120)}); write the column as text"
            ) from error
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, BadInputError):
                raise
            raise BadInputError(
                f"{self.name} is not a whole Parquet file: {shown(error, 200)}; write or fetch it again"
            ) from error


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _as_python(array: pa.Array) -> list:
    """Return the values of a column: bytes as the text that they are, for some writers of Parquet do not mark it."""
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    items = getattr(array.type, "value_type", None)
    if _is_bytes(array.type):
        array = array.cast(pa.large_string())
    elif items is not None and _is_bytes(items) and not pa.types.is_map(array.type):
        array = array.cast(pa.large_list(pa.large_string()))
    elif pa.types.is_temporal(array.type):
        # A moment is no text, and as a number none is out of Python's range.
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    array.validate(full=True)
    return array.to_pylist(maps_as_pydicts="lossy")


def _depth(kind: pa.DataType) -> int:
    """Return how deep a type is nested."""
    deepest, waiting = 0, [(kind, 0)]
    while waiting:
        one, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(one.field(place).type, depth + 1) for place in range(one.num_fields)]
    return deepest
