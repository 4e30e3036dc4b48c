"""Describe a question to a STAC API, and the forms of requests that servers accept."""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from s2cube.area.antimeridian import bounds_lonlat, split, unwrap
from s2cube.stac._refusal import AnswerError
from s2cube.stac.catalogue_io import Request

if TYPE_CHECKING:
    from odc.geo.geom import Geometry
    from pystac_client import Client

PAGE_SIZE = 100
"""Scenes per page. 100 items of Copernicus Data Space have 6.5 MB; Planetary Computer refuses more than 1000 items."""
_SMALL_PAGE = 10
"""Two of the four servers in the tests have this default, so every server should accept it."""
_FEW_POINTS = 20
"""A polygon with this number of points or fewer is not the reason why a request is too long. A box has 5 points."""

_ORDER = ["-properties.datetime", "-id"]
"""Earth Search divides an answer into pages by the sorted fields only. Without the id, it loses scenes of one time."""

# HTTP statuses by their likely cause.
_REQUEST_TOO_LONG = (413, 414, 431)
_PAGE_TOO_LARGE = (413, 500, 502, 504)
_METHOD_NOT_ALLOWED = (403, 404, 405, 415, 501)
_REFUSED = (400, 422)
_TOO_LONG_TEXT = re.compile(r"too (large|long|big|many|complex)|vertices", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """The scenes to request from an API.

    Parameters
    ----------
    stac
        Address of the API.
    area
        Area in EPSG:4326, as RFC 7946 defines; None for all scenes. Answers may contain scenes outside it.
    datetime
        RFC 3339 interval; None for all scenes.
    ids
        Ids of scenes. If it is not empty, area and datetime are not sent.
    """

    stac: str
    collection: str
    area: "Geometry | None"
    datetime: str | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """The form of a request.

    Parameters
    ----------
    methods
        HTTP methods, in the order in which they are tried.
    is_sorted
        Whether the newest scenes are requested first.
    outline
        Shape that is sent as the area: the area itself, its convex hull, or its bounding box.
    limit
        Scenes per page.
    """

    methods: tuple[str, ...]
    is_sorted: bool
    outline: Literal["exact", "hull", "box"] = "exact"
    limit: int = PAGE_SIZE

    def request(self, client: "Client", address: str, question: Question) -> Request:
        """Compose the first request for a question.

        Parameters
        ----------
        client
            pystac-client's object, which composes the parameters.
        address
            Address for searches by the first method in `methods`.
        """
        selection = {"ids": question.ids} if question.ids else {"datetime": question.datetime, **self._area(question)}
        search = client.search(
            method=self.methods[0], collections=[question.collection], limit=self.limit,
            sortby=_ORDER if self.is_sorted else None, **selection,
        )  # fmt: skip
        return Request(address, self.methods[0], search.get_parameters())

    def _area(self, question: Question) -> dict[str, Any]:
        import shapely

        if question.area is None:
            return {}
        if self.outline == "exact":
            return {"intersects": question.area.json}
        if self.outline == "hull":
            return {"intersects": shapely.geometry.mapping(_hull(question.area))}
        west, south, east, north = bounds_lonlat(question.area.geom)
        # Servers interpret a box across the antimeridian differently. Scenes outside the area are removed later.
        return {"bbox": (west, south, east, north) if west <= east else (-180, south, 180, north)}

    def simpler(self, error: AnswerError, question: Question, has_begun: bool) -> "Form | None":
        """Return the next form to try after a server has refused this form; None if no form is left.

        Parameters
        ----------
        has_begun
            Whether pages have been received. If so, the only possible reason is that this page is too large.
        """
        status = error.status
        refused = status in _REFUSED and not has_begun
        is_too_long = not has_begun and (
            status in _REQUEST_TOO_LONG or (refused and bool(_TOO_LONG_TEXT.search(error.problem)))
        )
        can_split = status in _PAGE_TOO_LARGE and self.limit > 1
        candidates: list[tuple[bool, Form | None]] = [
            (is_too_long, self._coarser(question, _FEW_POINTS)),
            (is_too_long and self.methods[0] == "GET", self._by_other_method()),
            (can_split, replace(self, limit=max(1, self.limit // 2))),
            (refused and self.is_sorted, replace(self, is_sorted=False)),
            (refused, self._coarser(question, 0)),
            (refused and self.limit > _SMALL_PAGE, replace(self, limit=_SMALL_PAGE)),
            (refused or (status in _METHOD_NOT_ALLOWED and not has_begun), self._by_other_method()),
        ]
        return next((form for fits, form in candidates if fits and form), None)

    def _coarser(self, question: Question, few_points: int) -> "Form | None":
        import shapely

        if question.ids or question.area is None or self.outline == "box":
            return None
        shape = question.area.geom if self.outline == "exact" else _hull(question.area)
        if shapely.get_num_coordinates(shape) <= few_points:
            return None
        return replace(self, outline="hull" if self.outline == "exact" else "box")

    def _by_other_method(self) -> "Form | None":
        return replace(self, methods=self.methods[1:]) if len(self.methods) > 1 else None

    def __str__(self) -> str:
        order = "newest first" if self.is_sorted else "in any order"
        area = {"exact": "", "hull": ", for the convex hull of the area", "box": ", for the box of the area"}
        return f"by {self.methods[0]}, {order}, {self.limit} scenes per page{area[self.outline]}"


def _hull(area: "Geometry") -> Any:
    """Return the convex hull of an area, cut at the antimeridian as RFC 7946 requires."""
    import shapely

    return shapely.orient_polygons(split(unwrap(area.geom).convex_hull))
