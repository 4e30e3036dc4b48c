"""Create safe file names for every system from any text."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow

_LONGEST_TEXT = 1000
"""Number of characters of a text that are used. Normalising a long text of combining characters takes minutes."""


_DEVICES = "con|prn|aux|nul|conin|conout|clock|(com|lpt)[0-9¹²³]"
_DEVICE = re.compile(_DEVICES, re.IGNORECASE)
"""Names that Windows reserves: https://learn.microsoft.com/windows/win32/fileio/naming-a-file. Names with a
dollar sign are omitted, because file names of s2cube contain no dollar sign."""


_SAFE = "^[0-9A-Za-z_]([0-9A-Za-z_-]{0,78}[0-9A-Za-z_])?$"
"""Texts that are names already, if they are no devices. Other texts may be, too."""

_LONGEST_NAME_BYTES = 80
"""Maximum length of a name. A file name contains two of them, and most file systems allow 255 bytes."""


def file_name(text: str) -> str:
    """Create a name that is safe for every file system, shell and URL: letters and digits of any script, ``-``, ``_``.

    A name that Windows reserves for a device, such as CON, gets a digest of the text.
    """
    plain = re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFC", text[:_LONGEST_TEXT]))
    name = plain.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore").strip("-")
    return _with_digest(name, text) if _DEVICE.fullmatch(name) else name


def file_names(texts: "pyarrow.StringArray") -> "pyarrow.StringArray":
    """Create the `file_name` of each text of a column."""
    import pyarrow.compute as pc

    has_device = pc.match_substring_regex(texts, f"^({_DEVICES})$", ignore_case=True)
    is_safe = pc.and_not(pc.match_substring_regex(texts, _SAFE), has_device)
    return _with_replaced(texts, pc.invert(is_safe), file_name)


def name_keys(names: "pyarrow.StringArray") -> "pyarrow.StringArray":
    """Return the `name_key` of each name of a column."""
    import pyarrow.compute as pc

    return _with_replaced(pc.ascii_lower(names), pc.invert(pc.string_is_ascii(names)), name_key)


def _with_replaced(
    texts: "pyarrow.StringArray", is_replaced: "pyarrow.BooleanArray", function: Callable[[str], str]
) -> "pyarrow.StringArray":
    import pyarrow as pa
    import pyarrow.compute as pc

    replaced = pa.array(map(function, texts.filter(is_replaced).to_pylist()), texts.type)
    return pc.replace_with_mask(texts, is_replaced, replaced)


def unique_file_names(texts: Sequence[str]) -> list[str]:
    """Create file names from texts. They are also unique for file systems that ignore upper and lower case.

    A text that is a valid and unique name is used unchanged. Any other name gets a digest of its text.
    """
    names = [file_name(each) for each in texts]
    keys = [name_key(name) for name in names]
    counts = Counter(keys)
    taken = {key for key, count in counts.items() if count == 1}
    repeated: Counter[str] = Counter()
    for position, (text, key) in enumerate(zip(texts, keys, strict=True)):
        if counts[key] == 1 and key:
            continue
        number = repeated[text]
        repeated[text] += 1
        name = _with_digest(names[position], text, number)
        while name_key(name) in taken:
            name = _with_digest(name, text, number)
        taken.add(name_key(name))
        names[position] = name
    return names


def name_key(name: str) -> str:
    """Return a key that is equal for two names if a file system may treat them as the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _with_digest(name: str, text: str, number: int = 0) -> str:
    content = f"{text}\0{number}" if number else text
    digest = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name}-{digest}" if name else digest
