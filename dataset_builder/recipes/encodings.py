"""The encoding of a text file: stated, marked, UTF-8, or guessed and said so."""

import codecs
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from charset_normalizer import from_bytes

from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown
from dataset_builder.recipes.containers import Source

UTF8 = "utf-8-sig"
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_CANDIDATES = [
    "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp874", "koi8_r", "gb18030", "big5", "shift_jis",
    "euc_jp", "euc_kr", "cp1252", "latin_1",
]  # fmt: skip
_CHUNK = 1 << 20
_SAMPLE = 1 << 18
# Below this share of letters outside ASCII a text is in a Latin script.
_LATIN_SHARE = 0.3
# In Western texts these signs do not stand inside words; in the other code pages the bytes are letters.
_FOREIGN = re.compile(r"[A-Za-z][¹³¿£¥¯±¶¼¾ª\x80-\x9f]|[¹³¿£¥¯±¶\x80-\x9f][A-Za-z]")


_HALF_WIDTH, _IDEOGRAPHIC = re.compile("[\uff61-\uff9f]"), re.compile("[\u3001\uff0c]")


def checked_encoding(name: str) -> str:
    """Return the encoding if Python knows it as one of texts.

    Raises:
        BadInputError: it does not.
    """
    try:
        # UTF-8 and UTF-16 with the byte order mark that such files may begin with.
        known = codecs.lookup(name).name
        "a".encode(known)
    except (LookupError, ValueError, UnicodeError) as error:
        raise BadInputError(
            f"--encoding {shown(name)} is no encoding; give one such as utf-8, utf-16, cp1252 or latin-1"
        ) from error
    return UTF8 if known == "utf-8" else known


def encoding_of(source: Source) -> tuple[str, bool]:
    """Return the encoding of a file, and whether it is a guess.

    A byte order mark decides; else UTF-8, where the file is in it or is damaged UTF-8; else the likeliest encoding.
    """
    with source.open() as (stream, _):
        first = stream.read(_CHUNK)
        for mark, name in _MARKS.items():
            if first.startswith(mark):
                return name, False
        if wide := _wide(first):
            return wide, True
        decoder = codecs.getincrementaldecoder("utf-8")()
        chunk = first
        while chunk:
            try:
                if not chunk.isascii() or decoder.getstate()[0]:
                    decoder.decode(chunk)
            except UnicodeDecodeError:
                return _guess(chunk)
            chunk = stream.read(_CHUNK)
        pending = decoder.getstate()[0]
    return (UTF8, False) if not pending else _guess(first)


def _wide(head: bytes) -> str | None:
    """Return UTF-16 without a mark: every other byte of Latin text is zero."""
    even, odd = head[: 1 << 12 : 2], head[1 : 1 << 12 : 2]
    if len(odd) < 4:
        return None
    if odd.count(0) > 0.4 * len(odd) and not even.count(0):
        return "utf-16-le"
    return "utf-16-be" if even.count(0) > 0.4 * len(even) and not odd.count(0) else None


def _guess(chunk: bytes) -> tuple[str, bool]:
    text = chunk.decode("utf-8", "surrogateescape")
    broken = sum("\udc80" <= one <= "\udcff" for one in text)
    if sum(one > "\x7f" for one in text) - broken >= broken:
        return UTF8, False  # damaged in places, which the reader names
    # Only lines with letters outside ASCII tell encodings apart.
    lines = [line for line in chunk.splitlines() if not line.isascii()]
    sample = b"\n".join(lines)[:_SAMPLE]
    high = sum(byte > 0x7F for byte in sample)
    letters = high + sum(byte < 0x80 and chr(byte).isalpha() for byte in sample)
    if high < _LATIN_SHARE * letters:
        western = sample.decode("cp1252", "ignore")
        if not _FOREIGN.search(sample.decode("latin-1").translate(_WINDOWS)) and western:
            return "cp1252", True
    found = list(from_bytes(sample, cp_isolation=_CANDIDATES))
    if found and found[0].encoding == "shift_jis" and len(_HALF_WIDTH.findall(str(found[0]))) > high / 4:
        # Bytes of other encodings read as half-width kana, which hardly any text is in; a list has its own comma.
        others = [each for each in found if each.encoding != "shift_jis"]
        found = [each for each in others if _IDEOGRAPHIC.search(str(each))] or others
    return (found[0].encoding if found else "cp1252"), True


# Bytes of cp1252 that are signs or letters of Western texts; latin-1 would make control characters of them.
_WINDOWS = {byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0xA0)}


@contextmanager
def open_text(source: Source, encoding: str) -> Iterator[tuple[TextIO, Callable[[], int]]]:
    """Open a file as text, line ends as they are; also return the function that tells the bytes read."""
    with source.open() as (stream, tell):
        yield io.TextIOWrapper(stream, encoding, newline=""), tell


def damage(source: Source, encoding: str, error: UnicodeError) -> BadInputError:
    """Return the error for text that is not in its encoding; where lines can be told apart it names the line."""
    name, place = encoding.removesuffix("-sig").upper(), ""
    if encoding == UTF8:
        with source.open() as (stream, _):
            for number, line in enumerate(iter(lambda: stream.readline(_CHUNK), b""), start=1):
                # Read in parts, a long line may end in the middle of a character, which is no damage.
                if "\ufffd" in line.decode("utf-8", "replace")[:-1] and b"\xef\xbf\xbd" not in line:
                    place = f", line {number}"
                    break
    return BadInputError(
        f"{source.name}{place} is not a table in {name}: {shown(error, 120)}; mend it, or state its encoding, as in "
        "--encoding cp1252"
    )
