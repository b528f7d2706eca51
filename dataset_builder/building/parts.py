"""A build in parts: any part may run anywhere, at any time, and again; the last command finishes the build."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dataset_builder.building.shards import BuildFolder, Shard
from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown

_PART = re.compile(r"(\d{1,9})/(\d{1,9})")
_NAMED = 5


@dataclass(frozen=True)
class Part:
    """Part `number` of `count` of a build, counted from 1: every `count`-th shard."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read a part as `--part` gives it.

        >>> Part.parse("3/10")
        Part(number=3, count=10)

        Raises:
            BadInputError: it is of another form.
        """
        match = _PART.fullmatch(text.strip())
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count:
            raise BadInputError(f"--part is {shown(text)!r}; give I/N with I from 1 to N, such as 3/10")
        return cls(number, count)

    def of(self, shards: Sequence[Shard]) -> list[Shard]:
        """Return the shards of this part."""
        return list(shards[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def refuse_missing(folder: BuildFolder, shards: Sequence[Shard]) -> None:
    """Raise BadInputError where a shard is missing, with the parts that draw it."""
    finished = folder.finished()
    missing = {place: shard for place, shard in enumerate(shards) if shard.file_name not in finished}
    if not missing:
        return
    totals = folder.part_counts()
    parts = [str(Part(number, count)) for count in totals for number in sorted({one % count + 1 for one in missing})]
    named = ", ".join(shard.file_name for shard in list(missing.values())[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    listed = ", ".join(parts[:_NAMED]) + (f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else "")
    again = f"run --part {listed} again" if parts else "run the command without --finish, or its parts"
    raise BadInputError(
        f"{folder.root} lacks {len(missing)} of {len(shards)} shards: {named}{more}; {again}, then --finish"
    )
