"""Send the file of the areas to the worker that runs a submitted command. It lies in the output meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

from s2cube.config.paths import expand_user
from s2cube.config.sections import JobConfig, JobSection
from s2cube.errors import OutputError
from s2cube.storage.layout import SENT_AREAS
from s2cube.storage.output import Output


def send_areas(job: JobSection, output: Output) -> str | None:
    """Write a copy of the file of the areas to the output; return its name.

    Returns
    -------
    str or None
        None if the setting is no file of this machine: it is an address, a box, WKT or GeoJSON.
    """
    path = _path(job)
    files = _files(path)
    if not files:
        return None
    name, content = SENT_AREAS.format(run=output.run), BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        for each in files:
            archive.write(each, each.relative_to(path.parent))
    output.destination.put(name, content.getvalue())
    return name


@contextmanager
def areas_received(config: JobConfig, output: Output, name: str | None) -> Iterator[JobConfig]:
    """Yield settings that name a copy of the file of the areas on this machine. The file in the output is removed.

    It stays there if this process dies, for the worker that runs the command again.

    Parameters
    ----------
    name
        What `send_areas` returned. None: the settings are yielded unchanged.

    Raises
    ------
    OutputError
        If someone has removed the file.
    """
    if name is None:
        yield config
        return
    content = output.destination.read(name)
    if content is None:
        problem = f"has no {name}, the areas of this command"
        raise OutputError(output.destination.address, problem, "Submit the command again")
    with TemporaryDirectory(prefix="s2cube-areas-") as folder:
        with ZipFile(BytesIO(content)) as archive:
            archive.extractall(folder)
        _, bar, layer = str(config.job.aoi).partition("|")
        aoi = f"{Path(folder) / _path(config.job).name}{bar}{layer}"
        job = config.job.model_copy(update={"aoi": aoi if layer else Path(aoi)})
        try:
            yield config.model_copy(update={"job": job})
        finally:
            output.destination.remove(name)


def _path(job: JobSection) -> Path:
    """Return the path of the file of the areas, without the name of a layer."""
    return expand_user(Path(str(job.aoi).partition("|")[0]))


def _files(path: Path) -> list[Path]:
    """Return the files that belong to a file of areas: a Shapefile has several, and a geodatabase is a folder."""
    try:
        if path.is_dir():
            return sorted(each for each in path.rglob("*") if each.is_file())
        if not path.exists():
            return []
    except (OSError, ValueError):
        # WKT may be too long for the name of a file.
        return []
    return sorted(path.parent.glob(f"{escape(path.stem)}.*")) if path.suffix.lower() == ".shp" else [path]
