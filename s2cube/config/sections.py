"""What can be set, and to what.

Every setting is a field below, and only there. Its key stands in the TOML file under its section, in the
environment as ``S2CUBE_<SECTION>__<KEY>`` and on the command line as ``--<key>``.
Flag beats environment beats file beats default.
"""

import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from s2cube.config.literals import Dtype, Offset, Quality
from s2cube.config.stores import Stores, parse_stores
from s2cube.config.times import TimeRange
from s2cube.errors import ConfigError

_THREADS_PER_CORE = 2


def _split_names(value: object) -> object:
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


def _parse_time_range(value: object) -> object:
    if isinstance(value, list | tuple):
        value = "/".join(map(str, value))
    # TOML and Python have dates of their own.
    return TimeRange.parse(str(value)) if isinstance(value, str | date) else value


def _check_crs(value: object) -> str:
    if value == "auto":
        return "auto"
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        crs = CRS.from_user_input(value)
    except CRSError as error:
        raise ValueError(f"'{value}' is no CRS that PROJ knows") from error
    epsg = crs.to_epsg()
    if epsg is None or not crs.is_projected or any(axis.unit_name != "metre" for axis in crs.axis_info):
        raise ValueError(f"'{value}' is not a projected CRS in metres with an EPSG code")
    if crs.is_deprecated:
        # PROJ and GDAL put such codes in different places: EPSG:2163 is 430 m off in one of them.
        better = " or ".join(f"EPSG:{other.to_epsg()}" for other in crs.get_non_deprecated())
        raise ValueError(f"'{value}' is deprecated by EPSG" + (f"; take {better}" if better else ""))
    return f"EPSG:{epsg}"


def _check_unique(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or "" in value:
        raise ValueError("an empty band name")
    if len(set(value)) < len(value):
        raise ValueError("a band is named twice")
    return value


def _path_or_address(value: object) -> object:
    return value if re.match(r"[a-zA-Z][\w+.-]+:/", str(value)) else Path(str(value)).expanduser()


def _or_none(value: object) -> object:
    """Let a flag take back what a file says."""
    return None if value == "" else value


def _parse_table(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError("no JSON object") from error


def _no_layers(value: object) -> object:
    return () if value in ("none", ["none"], ("none",)) else value


def _split_rules(value: object) -> object:
    if isinstance(value, str):
        value = dict(part.strip().partition("=")[::2] for part in value.split(",") if part.strip())
    return tuple(value.items()) if isinstance(value, Mapping) else value


def _check_rules(value: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    for url in (each for rule in value for each in rule):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"'{url}' is no http or https address")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an address with a user, a password or a query: it would travel to all workers")
    return value


_Path = Annotated[Path, AfterValidator(Path.expanduser)]
_Percent = Annotated[float, Field(ge=0, le=100)]
MaskLayer = Literal["scl", "cloud", "snow", "qa60"]


class Section(BaseModel):
    """Settings of one kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Validate settings given in Python, as in a notebook.

        Raises
        ------
        ConfigError
            If a setting is unknown or its value cannot be.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise explain(error, cls, lambda loc: str(loc[0])) from None


class JobSection(Section):
    """What the job reads and where it writes."""

    aoi: _Path = Field(Path("aoi.geojson"), description="FILE with the area of interest, any vector format.")
    aoi_id: str | None = Field(None, description="PROPERTY that names each feature; default: id, else name.")
    out: Annotated[Path | str, BeforeValidator(_path_or_address)] = Field(
        Path("out"), description="Output DIR, or s3://, gs:// or az://BUCKET/FOLDER."
    )
    overwrite: bool = Field(False, description="Make slices again that are there already.")
    slice_retries: int = Field(
        2, ge=0, le=20, description="N times that a slice is made again that failed in a way that may pass."
    )
    max_aoi_cloud_percent: _Percent | None = Field(
        None,
        alias="max_aoi_cloud",
        description="Reject slices with more cloud inside the AOI, PERCENT of what was seen, and read no band of them.",
    )


class SearchSection(Section):
    """Which scenes."""

    stac: str = Field(
        "https://earth-search.aws.element84.com/v1",
        description="URL or PATH of a STAC API, an ItemCollection, a static catalogue or a stac-geoparquet file.",
    )
    collection: str = Field("sentinel-2-l2a", description="ID of the collection.")
    datetime: Annotated[TimeRange | None, BeforeValidator(_parse_time_range)] = Field(
        None, description="A/B, each a year, month, day or second in UTC, or .. for open; default: all."
    )
    max_cloud_percent: float = Field(
        100, alias="max_cloud", ge=0, le=100, description="Highest cloud cover of a scene, PERCENT."
    )
    max_items: int | None = Field(None, ge=1, description="Keep the N newest scenes of an AOI.")


class CubeSection(Section):
    """How pixels are made."""

    bands: Annotated[tuple[str, ...], BeforeValidator(_split_names), AfterValidator(_check_unique)] = Field(
        ("blue", "green", "red", "nir", "swir16"), description="Bands, comma-separated, in the order wanted."
    )
    crs: Annotated[str, BeforeValidator(_check_crs)] = Field(
        "auto", description="EPSG:N, or auto for the UTM zone of the AOI (UPS near the poles)."
    )
    resolution_m: float = Field(30, alias="resolution", ge=1, le=10_000, description="Pixel size, 1 to 10000 METRES.")
    quality: Quality = Field(
        "exact",
        description="exact: area mean of native pixels; fast: of overview pixels no larger than the resolution.",
    )
    offset: Annotated[Offset, BeforeValidator(str)] = Field(
        "auto", description="What is added to digital numbers: auto goes by baseline and catalogue."
    )
    mask: Annotated[tuple[MaskLayer, ...], BeforeValidator(_no_layers), BeforeValidator(_split_names)] = Field(
        ("scl",),
        description="none, or any of scl (scene classification), cloud, snow (probabilities), qa60: comma-separated.",
    )
    mask_classes: Annotated[tuple[Annotated[int, Field(ge=0, le=11)], ...], BeforeValidator(_split_names)] = Field(
        (0, 1, 3, 8, 9, 10), description="Scene classes, 0 to 11, that --mask scl drops."
    )
    max_cloud_probability: _Percent = Field(40, description="Highest that --mask cloud keeps, PERCENT.")
    max_snow_probability: _Percent = Field(40, description="Highest that --mask snow keeps, PERCENT.")
    dilation_m: float = Field(
        0, alias="dilation", ge=0, le=2000, description="Mask within so many METRES of cloud and shadow, too."
    )
    group_by: Literal["solar_day", "scene"] = Field("solar_day", description="One image a solar_day, or a scene.")
    dtype: Dtype = Field(
        "int16", description="int16: reflectance x 10000, nodata -9999; float32: reflectance, nodata NaN."
    )


class ReadSection(Section):
    """How files are read."""

    timeout_s: float = Field(
        60, alias="timeout", gt=0, le=3600, description="SECONDS that a request for a part of a file may take."
    )
    retries: int = Field(
        5, ge=0, le=20, description="N times that a request is made again when it fails in a way that may pass."
    )
    tokens: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_split_rules), AfterValidator(_check_rules)] = Field(
        (), description="PREFIX=ADDRESS, comma-separated: who gives tokens for files whose links begin so."
    )
    stores: Annotated[Stores, BeforeValidator(parse_stores)] = Field(
        (),
        description="Endpoint, region and key names of s3:// stores by prefix: TOML table, or JSON; no key in it.",
    )


class OutputSection(Section):
    """How images are written."""

    compress: Literal["deflate", "zstd", "lzw", "none"] = Field(
        "deflate",
        description="Compression of COGs: deflate opens everywhere; zstd is quicker and smaller, none largest.",
    )
    compress_level: int | None = Field(
        None, ge=1, le=22, description="Effort of it, N to 12 for deflate, to 22 for zstd; default: 4, or 3."
    )

    @field_validator("compress_level")
    @classmethod
    def _check_level(cls, level: int | None, others: ValidationInfo) -> int | None:
        compress = others.data.get("compress", "deflate")
        if level is not None and level > {"deflate": 12, "zstd": 22}.get(compress, 0):
            raise ValueError(f"{compress} has no level {level}")
        return level


class ClusterSection(Section):
    """Where it is computed."""

    scheduler: Annotated[str | None, BeforeValidator(_or_none)] = Field(
        None, description="ADDRESS of a Dask scheduler; default: a cluster of this machine."
    )
    cluster_class: Annotated[str | None, BeforeValidator(_or_none)] = Field(
        None, alias="class", description="Dotted NAME of a Dask cluster's class, as dask_jobqueue.SLURMCluster."
    )
    options: Annotated[dict[str, Any] | None, BeforeValidator(_parse_table)] = Field(
        None, description="What that class is called with: a TOML table, or JSON."
    )
    workers: int | None = Field(
        None, ge=1, description="Worker processes: of a class, as many as it is to have; here, one a core."
    )
    threads: int | None = Field(
        None, ge=1, description="Slices at a time in a worker process on this machine; default: 2 a core."
    )
    worker_wait_s: float = Field(
        3600, alias="worker_wait", ge=0, description="SECONDS without any worker, after which a run gives up."
    )
    tls_ca: _Path | None = Field(None, description="FILE with the certificate of who signs certificates, for tls://.")
    tls_cert: _Path | None = Field(None, description="FILE with the client's certificate.")
    tls_key: _Path | None = Field(None, description="FILE with the client's key.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.scheduler and self.cluster_class:
            raise ValueError("a scheduler and a class are two clusters")
        if self.options and not self.cluster_class:
            raise ValueError("options are a class's, and none is named")
        if self.cluster_class and not self.workers:
            raise ValueError("how many workers is a cluster of a class to have?")
        return self

    def workers_on(self, cores: int) -> int:
        """Worker processes of a cluster on a machine of so many cores."""
        return self.workers or cores

    def threads_on(self, cores: int) -> int:
        """Slices at a time in each of them."""
        return self.threads or max(1, cores * _THREADS_PER_CORE // self.workers_on(cores))


class SearchSettings(TypedDict, total=False):
    """Keys of SearchSection as keyword arguments."""

    stac: str
    collection: str
    datetime: str | TimeRange | None
    max_cloud: float
    max_items: int | None


class CubeSettings(TypedDict, total=False):
    """Keys of CubeSection as keyword arguments."""

    bands: "str | list[str] | tuple[str, ...]"
    crs: str | int
    resolution: float
    quality: Quality
    offset: Offset | int
    mask: "str | list[MaskLayer] | tuple[MaskLayer, ...]"
    mask_classes: "str | list[int] | tuple[int, ...]"
    max_cloud_probability: float
    max_snow_probability: float
    dilation: float
    group_by: Literal["solar_day", "scene"]
    dtype: Dtype


class ReadSettings(TypedDict, total=False):
    """Keys of ReadSection as keyword arguments."""

    timeout: float
    retries: int
    tokens: dict[str, str]
    stores: dict[str, dict[str, str | bool]]


class OutputSettings(TypedDict, total=False):
    """Keys of OutputSection as keyword arguments."""

    compress: Literal["deflate", "zstd", "lzw", "none"]
    compress_level: int | None


class OpenSettings(CubeSettings, ReadSettings, total=False):
    """What `open_cube` takes."""


class JobConfig(Section):
    """One job, whole."""

    job: JobSection = JobSection()
    search: SearchSection = SearchSection()
    cube: CubeSection = CubeSection()
    read: ReadSection = ReadSection()
    output: OutputSection = OutputSection()
    cluster: ClusterSection = ClusterSection()

    def for_workers(self) -> Self:
        """Leave out what workers have no use for, and what may hold secrets: where to search, and the cluster."""
        cluster = ClusterSection(worker_wait=self.cluster.worker_wait_s)
        return self.model_copy(update={"search": SearchSection(), "cluster": cluster})


def explain(error: ValidationError, model: type[Section], origin: Any) -> ConfigError:
    """Say of the first thing that is wrong where it was said, by its place in the model."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "extra_forbidden":
        keys = ", ".join(field.alias or name for name, field in model.model_fields.items())
        return ConfigError(str(first["loc"][0]), "unknown setting", f"Settings: {keys}")
    problem = first["msg"].removeprefix("Value error, ")
    # The value of `stores` is not shown: it may hold a key, against the rule.
    silent = isinstance(first["input"], dict) or "stores" in first["loc"]
    given = "" if silent else f" (given: {first['input']!r})"
    return ConfigError(str(origin(first["loc"])), f"{problem}{given}", "Correct the value")
