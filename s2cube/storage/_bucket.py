"""An object store to write to. Each file is written completely or not at all, and then its size is checked."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from s2cube.config.stores import Stores
from s2cube.errors import OutputError, WriteError, redact
from s2cube.fetch.object_store import interruptible, store_to_write
from s2cube.storage.layout import OWN

if TYPE_CHECKING:
    import obstore.store

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bucket:
    """A folder of an object store, or the complete bucket.

    Parameters
    ----------
    stores
        See `store_to_write`.
    """

    address: str
    stores: Stores = ()

    @property
    def is_shared(self) -> bool:
        return True

    def local(self, _name: str) -> None:
        return None

    def prepare(self) -> None:
        try:
            # List first: some stores create a missing bucket when a file is written.
            self._list("", most=1)
            self.check_writable()
        except WriteError as error:
            remedy = "Check --out, and that the keys in the environment may write there"
            raise OutputError(self.address, error.problem, remedy) from None

    def clean_up(self) -> None:
        """Do nothing: an object store never contains incomplete files."""

    def check_writable(self) -> None:
        name = f"{OWN}-{uuid4().hex}"
        self.put(name, b"")
        self.remove(name)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="s2cube-") as folder:
            yield Path(folder)

    def put(self, name: str, content: bytes | Path) -> None:
        import obstore

        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with self._named_errors(name):
            interruptible(lambda: obstore.put(self._store, name, content))
            stored_bytes = interruptible(lambda: obstore.head(self._store, name)["size"])
        if stored_bytes != size:
            raise self._write_error(name, f"the store has {stored_bytes} of {size} bytes")

    def put_folder(self, _name: str, _folder: Path) -> bool:
        return False  # an object store has no folders

    def read(self, name: str) -> bytes | None:
        found = self._find(name)
        return found[0] if found else None

    def remove(self, name: str) -> None:
        import obstore

        with self._named_errors(name), suppress(FileNotFoundError):
            interruptible(lambda: obstore.delete(self._store, name))

    def chunks(self, name: str) -> Iterator[bytes]:
        import obstore

        with self._named_errors(name, "read"):
            answer = interruptible(lambda: obstore.get(self._store, name))
            for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def append(self, name: str, lines: bytes) -> None:
        # Object stores cannot append.
        before = self.read(name) or b""
        self.put(name, before + (b"\n" if before and not before.endswith(b"\n") else b"") + lines)

    def sizes(self, depth: int, under: str = "", least: int | None = None) -> dict[str, int]:
        above = under.count("/") + 1 if under else 0
        found = self._list_directly(under) if depth == above + 1 else self._list(under)
        depths = range(depth if least is None else least, depth + 1)
        names = (name for name in found if name.count("/") + 1 in depths and name[0] != ".")
        return {name: found[name] for name in sorted(names, key=lambda name: name.split("/"))}

    def _list_directly(self, under: str) -> dict[str, int]:
        """Return the sizes of the files in a folder, by name. Files in its folders are not listed."""
        import obstore

        with self._named_errors(under, "listed"):
            listed = interruptible(lambda: obstore.list_with_delimiter(self._store, under or None))
        return {each["path"]: each["size"] for each in listed["objects"]}

    def _list(self, under: str, most: int | None = None) -> dict[str, int]:
        """Return the sizes of files by name. If `most` is given, stop as soon as that many files are found."""
        import obstore

        def list_pages() -> dict[str, int]:
            found: dict[str, int] = {}
            for page in obstore.list(self._store, under or None):
                found |= {each["path"]: each["size"] for each in page}
                if most and len(found) >= most:
                    break
            return found

        with self._named_errors(under, "listed"):
            return interruptible(list_pages)

    def compare_and_swap(self, name: str, old: bytes | None, new: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        found = self._find(name)
        if (found[0] if found else None) != old:
            return False
        with self._named_errors(name):
            try:
                interruptible(
                    lambda: obstore.put(self._store, name, new, mode={"e_tag": found[1]} if found else "create")
                )
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def _find(self, name: str) -> tuple[bytes, str | None] | None:
        import obstore

        def get() -> tuple[bytes, str | None]:
            answer = obstore.get(self._store, name)
            return bytes(answer.bytes()), answer.meta["e_tag"]

        with suppress(FileNotFoundError), self._named_errors(name, "read"):
            return interruptible(get)
        return None

    @property
    def _store(self) -> "obstore.store.ObjectStore":
        return store_to_write(self.address, self.stores)

    @contextmanager
    def _named_errors(self, name: str, verb: str = "written") -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            if verb == "read" and isinstance(error, FileNotFoundError):
                raise
            raise self._write_error(name, _reason(error), verb) from None

    def _write_error(self, name: str, reason: str, verb: str = "written") -> WriteError:
        remedy = "Check the bucket and the keys in the environment; then run again"
        return WriteError(f"{self.address}/{name}", f"cannot be {verb} ({reason})", remedy)


_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")


def _reason(error: Exception) -> str:
    text = str(error)
    details = [found[1] for pattern in (_CODE, _MESSAGE) if (found := pattern.search(text))]
    return ": ".join(details) if details else redact(text.split("\n")[0], 300)
