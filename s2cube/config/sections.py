"""Define all settings: names, types, limits and defaults.

Every setting is defined once, as a field below. It has the same key in the TOML file (in its section), in the
environment (``S2CUBE_<SECTION>__<KEY>``) and on the command line (``--<key>``). A flag overrides the environment, the
environment overrides the file, and the file overrides the default. The first word in capitals of a description is the
placeholder of the value in help. Public functions repeat keys and defaults in their signatures. A test compares them
with these fields.
"""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from s2cube.config._parsers import (
    DEFAULT_STATISTICS,
    check_bands,
    check_crs,
    check_indices,
    check_rules,
    check_statistics,
    empty_to_none,
    parse_address,
    parse_area,
    parse_destination,
    parse_dtype,
    parse_json_table,
    parse_none,
    parse_rules,
    split_names,
)
from s2cube.config._section import Section
from s2cube.config.composites import CompositeSection
from s2cube.config.literals import Compression, Dtype, GroupBy, JoinEngine, MaskLayer, Offset, Quality, TableFormat
from s2cube.config.paths import expand_user
from s2cube.config.stores import Stores, parse_stores
from s2cube.config.sync import SyncSection
from s2cube.config.times import TimeRange, parse_times

THREADS_PER_CORE = 2
"""Number of slices that a core computes at the same time, because slices wait for servers."""

_Path = Annotated[Path, AfterValidator(expand_user)]
_Names = Annotated[tuple[str, ...], BeforeValidator(parse_none), BeforeValidator(split_names)]
_Percent = Annotated[float, Field(ge=0, le=100)]


class JobSection(Section):
    """Input and output of the job."""

    aoi: Annotated[Path | str, BeforeValidator(parse_area)] = Field(
        Path("aoi.geojson"),
        description="FILE with the areas of interest, any vector format; or west,south,east,north in degrees; or WKT.",
    )
    aoi_layer: str | None = Field(None, description="LAYER of the file; default: the only layer with polygons.")
    aoi_id: str | None = Field(None, description="PROPERTY with the id of each feature; default: id, else name.")
    out: Annotated[Path | str, BeforeValidator(parse_destination)] = Field(
        Path("out"), description="Output DIR, or s3://, gs:// or az://BUCKET/FOLDER."
    )
    overwrite: bool = Field(False, description="Compute and replace slices that exist already.")
    slice_retries: int = Field(
        2, ge=0, le=20, description="Retry a failed slice up to N times if the error may be temporary."
    )
    max_aoi_cloud_percent: _Percent | None = Field(
        None,
        alias="max_aoi_cloud",
        description="Reject slices with more cloud in the area, PERCENT of what is observed; bands are not read.",
    )
    report: bool = Field(False, description="Write OUT/report.html at the end: a page that describes the output.")


class SearchSection(Section):
    """Selection of scenes."""

    stac: Annotated[str, BeforeValidator(parse_address)] = Field(
        "https://earth-search.aws.element84.com/v1",
        description="URL or PATH of a STAC API, an ItemCollection, a static catalogue or a stac-geoparquet file.",
    )
    collection: str = Field("sentinel-2-l2a", description="ID of the collection.")
    datetime: Annotated[TimeRange | None, BeforeValidator(parse_times)] = Field(
        None, description="DATES: A/B, each a year, month, day or second in UTC, or .. for an open end; default: all."
    )
    max_cloud_percent: float = Field(
        100, alias="max_cloud", ge=0, le=100, description="Maximum cloud cover of a scene, PERCENT."
    )
    max_items: int | None = Field(None, ge=1, description="Keep only the N newest scenes of each AOI.")


class CubeSection(Section):
    """Computation of pixels."""

    bands: Annotated[_Names, AfterValidator(check_bands)] = Field(
        ("red", "green", "blue", "nir", "swir16"),
        description="NAMES of bands, comma-separated; scl and qa are bands of classes; none: only --indices.",
    )
    indices: Annotated[_Names, AfterValidator(check_indices)] = Field(
        (), description="NAMES of spectral indices, comma-separated, such as NDVI,EVI; they follow the bands."
    )
    crs: Annotated[str, BeforeValidator(check_crs)] = Field(
        "auto", description="EPSG:N, or auto for the UTM zone of the AOI (UPS near the poles)."
    )
    resolution_m: float = Field(30, alias="resolution", ge=1, le=10_000, description="Pixel size, 1 to 10000 METRES.")
    quality: Quality = Field(
        "exact",
        description="exact: area mean of native pixels; fast: mean of overview pixels not larger than the resolution.",
    )
    offset: Annotated[Offset, BeforeValidator(str)] = Field(
        "auto", description="Offset added to digital numbers; auto: by processing baseline and catalogue."
    )
    mask: Annotated[tuple[MaskLayer, ...], BeforeValidator(parse_none), BeforeValidator(split_names)] = Field(
        ("scl",),
        description="none, or LAYERS: scl (scene classification), cloud, snow (probabilities), qa60; comma-separated.",
    )
    mask_classes: Annotated[tuple[Annotated[int, Field(ge=0, le=11)], ...], BeforeValidator(split_names)] = Field(
        (0, 1, 3, 8, 9, 10), description="Scene CLASSES, 0 to 11, comma-separated, that --mask scl masks."
    )
    max_cloud_probability: _Percent = Field(40, description="Maximum that --mask cloud keeps, PERCENT.")
    max_snow_probability: _Percent = Field(40, description="Maximum that --mask snow keeps, PERCENT.")
    dilation_m: float = Field(
        0,
        alias="dilation",
        ge=0,
        le=2000,
        description="Also mask pixels within this distance of cloud and shadow, METRES.",
    )
    group_by: GroupBy = Field("solar_day", description="One image per solar_day, or per scene.")
    dtype: Annotated[Dtype, BeforeValidator(parse_dtype)] = Field(
        "int16", description="int16: reflectance x 10000, nodata -9999; float32: reflectance, nodata NaN."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.bands and not self.indices:
            raise ValueError("there are neither bands nor indices", "Set --bands or --indices")
        return self

    @property
    def image_bands(self) -> tuple[str, ...]:
        """Names of all bands of an image: the bands, then the indices."""
        return (*self.bands, *self.indices)


class ReadSection(Section):
    """Reading of files."""

    timeout_s: float = Field(
        60,
        alias="timeout",
        gt=0,
        le=3600,
        description="Time limit of a request, to a catalogue or for a part of a file, SECONDS.",
    )
    retries: int = Field(
        5, ge=0, le=20, description="Retry a failed request up to N times if the error may be temporary."
    )
    tokens: Annotated[tuple[tuple[str, str], ...], BeforeValidator(parse_rules), AfterValidator(check_rules)] = Field(
        (), description="PREFIX=ADDRESS, comma-separated: the token service for links that begin with PREFIX."
    )
    stores: Annotated[Stores, BeforeValidator(parse_stores)] = Field(
        (),
        description="Endpoint, region and key names of s3:// stores by prefix, JSON or a TOML table; no secret keys.",
    )


class OutputSection(Section):
    """Writing of images."""

    compress: Compression = Field(
        "deflate", description="Compression of COGs: all software can read deflate; zstd is faster and smaller."
    )
    compress_level: int | None = Field(
        None,
        ge=1,
        le=22,
        description="Compression level N, up to 12 for deflate (default 4), up to 22 for zstd (default 3).",
    )

    @field_validator("compress_level")
    @classmethod
    def _check_level(cls, level: int | None, others: ValidationInfo) -> int | None:
        compress = others.data.get("compress", "deflate")
        highest = {"deflate": 12, "zstd": 22}.get(compress, 0)
        if level is not None and level > highest:
            remedy = f"Give a level from 1 to {highest}" if highest else "Remove the level"
            raise ValueError(f"{compress} has no level {level}", remedy)
        return level


class TableSection(Section):
    """Table of statistics of areas."""

    statistics: Annotated[tuple[str, ...], BeforeValidator(split_names), AfterValidator(check_statistics)] = Field(
        (),
        description="NAMES of statistics, comma-separated: mean, std, median, min, max, count, p0 to p100. "
        "stats computes mean, std and median by default, run no statistics.",
    )
    join: JoinEngine = Field(
        "shapely",
        description="sedona: SedonaDB (extra [sedona]) joins areas to scenes: slower, within a limit of memory.",
    )
    format: TableFormat = Field("parquet", description="csv: also write the table as one CSV file.")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The statistics of a table."""
        return self.statistics or DEFAULT_STATISTICS


class ClusterSection(Section):
    """The cluster that computes slices."""

    scheduler: Annotated[str | None, BeforeValidator(empty_to_none)] = Field(
        None, description="ADDRESS of a Dask scheduler; default: start a cluster on this machine for this run."
    )
    cluster_class: Annotated[str | None, BeforeValidator(empty_to_none)] = Field(
        None, alias="class", description="Dotted NAME of a Dask cluster class, such as dask_jobqueue.SLURMCluster."
    )
    options: Annotated[dict[str, Any] | None, BeforeValidator(parse_json_table)] = Field(
        None, description="Arguments of the cluster class, JSON or a TOML table."
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Number of worker processes; default on this machine: one per core, none for a small job.",
    )
    threads: int | None = Field(
        None, ge=1, description="Slices per process at the same time, on this machine; default: 1 or 2 per core."
    )
    worker_wait_s: float = Field(
        3600, alias="worker_wait", ge=0, description="End a run after this time without workers, SECONDS."
    )
    tls_ca: _Path | None = Field(None, description="FILE with the certificate authority's certificate, for tls://.")
    tls_cert: _Path | None = Field(None, description="FILE with the client's certificate.")
    tls_key: _Path | None = Field(None, description="FILE with the client's key.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.scheduler and self.cluster_class:
            raise ValueError("scheduler and class exclude each other", "Remove one of them")
        if self.options and not self.cluster_class:
            raise ValueError("options need a class", "Set --class")
        if self.cluster_class and not self.workers:
            raise ValueError("a class needs the number of workers", "Set --workers")
        return self

    def workers_on(self, cores: int) -> int:
        """Return the number of worker processes of a cluster on a machine with this number of cores."""
        return self.workers or cores

    def threads_on(self, cores: int) -> int:
        """Return the number of slices that each worker process computes at the same time."""
        return self.threads or max(1, cores * THREADS_PER_CORE // self.workers_on(cores))


class JobConfig(Section):
    """All settings of one job.

    The values are validated and cannot be changed. `load_config` reads them from a TOML file, the environment and
    flags.

    Examples
    --------
    >>> from s2cube import JobConfig
    >>> config = JobConfig.model_validate({"search": {"max_cloud": 20}, "cube": {"bands": "red,nir"}})
    >>> config.search.max_cloud_percent, config.cube.bands, config.output.compress
    (20.0, ('red', 'nir'), 'deflate')
    """

    job: JobSection = JobSection()
    search: SearchSection = SearchSection()
    cube: CubeSection = CubeSection()
    read: ReadSection = ReadSection()
    output: OutputSection = OutputSection()
    table: TableSection = TableSection()
    composite: CompositeSection = CompositeSection()
    sync: SyncSection = SyncSection()
    cluster: ClusterSection = ClusterSection()

    def for_workers(self) -> Self:
        """Copy the settings without the addresses of catalogue and cluster. Workers do not use these secrets."""
        search = self.search.model_copy(update={"stac": SearchSection().stac})
        return self.without_cluster().model_copy(update={"search": search})

    def without_cluster(self) -> Self:
        """Copy the settings for a worker, which uses the cluster that it belongs to."""
        return self.model_copy(update={"cluster": ClusterSection(worker_wait=self.cluster.worker_wait_s)})
