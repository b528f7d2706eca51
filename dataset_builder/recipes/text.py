"""Text as a person would read it: without HTML, in one form for equal titles, with the marks that separate entries."""

import html
import re
import unicodedata

# Accents of Latin, Greek and Cyrillic letters, and the vowel points of Hebrew and Arabic, which most texts leave out.
# In other scripts marks are vowels and voices ("が" is not "か"), so that they belong to the word.
ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0655\u0670]")

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z][A-Za-z\d]{1,30});")
_HEADING_TAG = re.compile(r"<h[1-6]\b[^<>]*>(.*?)</h[1-6]\s*>", re.IGNORECASE | re.DOTALL)
_BLOCK_TAG = re.compile(
    r"<\s*/?\s*(?:li|ul|ol|dl|dt|dd|p|br|hr|div|tr|table|tbody|thead|section|article|header|footer)\b[^<>]*>",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
# Every ASCII character that is no letter and no digit becomes a blank.
_ASCII_WORDS = "".join(one if one.isalnum() else " " for one in map(chr, range(128)))
_INLINE_TAG = re.compile(
    r"<\s*/?\s*(?:a|abbr|b|big|body|center|cite|code|del|em|font|html|i|img|input|ins|label|mark|meta|noscript|s|small"
    r"|span|strike|strong|sub|sup|svg|td|th|time|u|wbr)\b[^<>]*>",
    re.IGNORECASE,
)


def readable(text: str) -> str:
    r"""Return a text without HTML: entities become letters, blocks and breaks become lines, other tags go.

    A literal `\n` in a text without line breaks is one, too: some writers escape it twice.

    >>> readable("<li>2 cups sugar</li><li>salt &amp; pepper</li>").split("\n")
    ['', '2 cups sugar', '', 'salt & pepper', '']
    >>> readable("Fish & chips < 20 minutes")
    'Fish & chips < 20 minutes'
    """
    if "\\" in text and "\n" not in text:
        text = text.replace("\\r\\n", "\n").replace("\\n", "\n").replace("\\r", "\n")
    if "&" in text:
        for _ in range(2):  # some pages were escaped twice
            text = _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)
    if "<" in text:
        text = _HIDDEN.sub("", text)
        text = _HEADING_TAG.sub(lambda tag: f"\n{tag.group(1).strip().rstrip(':')}:\n", text)
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub("\n", text))
    return text.replace("\xa0", " ")


def plain_title(title: str) -> str:
    """Return the form under which equal titles are equal, for builds, splits and audits alike.

    Accents, case and punctuation do not count. A title without any letter or digit is left as it is.

    >>> plain_title("CRÈME BRÛLÉE!") == plain_title("Creme Brulee")
    True
    """
    letters = title.casefold()
    if letters.isascii():  # nearly always, and ten times faster
        return " ".join(letters.translate(_ASCII_WORDS).split()) or title.strip()
    letters = ACCENTS.sub("", unicodedata.normalize("NFKD", title)).casefold()
    words = "".join(one if unicodedata.category(one)[0] in "LNM" else " " for one in letters).split()
    return unicodedata.normalize("NFC", " ".join(words)) or title.strip()
