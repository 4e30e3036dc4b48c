"""Compare the packages of a client with those of the workers."""

import logging
from typing import Any

from distributed import Client

from s2cube import DISTRIBUTION
from s2cube.errors import ClusterError

log = logging.getLogger(__name__)

_ANSWER_S = 10
"""Maximum time (s) until all workers have answered."""

_MUST_AGREE = (DISTRIBUTION,)
_MUST_BE_THERE = (
    "stackstac",
    "xarray",
    "rioxarray",
    "rasterio",
    "odc-geo",
    "pystac",
    "imagecodecs",
    "obstore",
    "spyndex",
)
_SHOULD_AGREE = ("dask", "distributed", "numpy", *_MUST_BE_THERE)


def check_versions(client: Client) -> None:
    """Compare the packages of a client with those of the workers; warn about differences that may be harmless.

    Raises
    ------
    ClusterError
        If a worker has another version of s2cube or Python, or lacks a package.
    """
    try:
        # The call runs in the client's event loop, because `get_versions` has no timeout: it would wait forever for a
        # frozen worker.
        found: Any = client.sync(_versions, client, callback_timeout=_ANSWER_S)
    except TimeoutError:
        log.warning("a worker does not answer: the versions of its packages are not checked")
        return
    here = found["client"]["packages"]
    differences = set()
    for address, worker in found["workers"].items():
        there = worker["packages"]
        missing = [name for name in (*_MUST_AGREE, *_MUST_BE_THERE) if there.get(name) is None and here.get(name)]
        if missing:
            problem = f"lacks {', '.join(missing)}"
            raise ClusterError(f"worker {address}", problem, "Install the same version of s2cube there as here")
        other = [name for name in _MUST_AGREE if there[name] != here[name]]
        if _minor(there["python"]) != _minor(here["python"]):
            other.append("python")
        if other:
            problem = ", ".join(f"has {name} {there[name]}, not {here[name]}" for name in other)
            raise ClusterError(f"worker {address}", problem, "Install the same version there as here")
        differences |= {(name, there[name], here[name]) for name in _SHOULD_AGREE if there.get(name) != here.get(name)}
    for name, on_workers, on_client in sorted(differences):
        log.warning("workers have %s %s, here it is %s: results may differ", name, on_workers, on_client)


async def _versions(client: Client) -> Any:
    versions: Any = client.get_versions(packages=[*_MUST_AGREE, *_MUST_BE_THERE])
    return await versions


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
