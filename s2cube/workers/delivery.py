"""Put the files of a slice into the output, or return them if this process cannot reach it."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from s2cube.errors import WriteError
from s2cube.fetch.session import per_session
from s2cube.storage.output import Output
from s2cube.workers.results import SliceResult, Written


@per_session(maxsize=4)
def can_write(output: Output) -> bool:
    """Report whether this process can write to the output of a run. A folder may be on another machine.

    Raises
    ------
    BusyError
        If another run writes to the bucket now.
    WriteError
        If this process has no permission to write to the bucket.
    """
    if output.destination.is_shared:
        output.fence.check()
        output.destination.check_writable()
        return True
    try:
        if output.fence.is_intact():
            output.destination.check_writable()
            return True
    except WriteError:
        return False  # readable but not writable here, so the files are returned
    return False


def deliver(write: Callable[[Path], Written], aoi_id: str, slice_id: str, output: Output | None) -> SliceResult:
    """Write the files of a slice, and put them into the output. Without an output, return their content.

    Parameters
    ----------
    write
        Writes the files to a folder.
    """
    with output.destination.staging() if output else TemporaryDirectory(prefix="s2cube-") as name:
        folder = Path(name)
        found = write(folder)
        if output:
            return SliceResult(slice_id, path=output.publish(aoi_id, slice_id, folder), found=found)
        contents = {each.name: each.read_bytes() for each in folder.iterdir()}
    return SliceResult(slice_id, files=contents, found=found)
