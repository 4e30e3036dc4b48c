"""A catalogue's answers, asked for patiently."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2cube.network import certificates, diagnose

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

_TIMEOUT_S = (10, 120)
"""To connect, and between two bytes of an answer."""
_ATTEMPTS = 5
_BUSY_STATUS = (429, 500, 502, 503, 504)
_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 60


def patient_io() -> "StacApiIO":
    """Give a reader of STAC, for pystac-client, that asks again where that can help.

    Busy answers, refused and dropped connections are retried with exponential backoff, which keeps to `Retry-After`;
    so are answers that end too early. What still fails raises pystac-client's APIError.
    """
    import requests
    import tenacity
    import urllib3
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO

    def broke_off(error: BaseException) -> bool:
        # urllib3 retries until an answer begins; one that ends too early is for us to ask again.
        return isinstance(error, APIError) and isinstance(error.__context__, requests.exceptions.ChunkedEncodingError)

    class Trusting(requests.adapters.HTTPAdapter):
        """Of the variables that name certificates, requests knows two."""

        def send(self, *args: Any, **options: Any) -> requests.Response:
            return super().send(*args, **options | {"verify": str(certificates())})

    class PatientIO(StacApiIO):
        request = tenacity.retry(
            retry=tenacity.retry_if_exception(broke_off),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(_BACKOFF_S, _LONGEST_BACKOFF_S),
            reraise=True,
        )(StacApiIO.request)

        def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
            if isinstance(source, str) and "://" not in source:
                # STAC is UTF-8, whatever the locale.
                return Path(source).read_text(encoding="utf-8")
            return super().read_text(source, *args, **kwargs)

        def json_loads(self, txt: str, *_: Any, **__: Any) -> Any:
            # pystac takes orjson where it is installed, which refuses a page for one NaN or half a character in it.
            return json.loads(txt)

    class Retry(urllib3.Retry):
        """What will not pass is not tried again: a name that does not exist, a certificate that is not trusted."""

        def increment(self, *args: Any, **facts: Any) -> urllib3.Retry:  # type: ignore[override]
            if (error := facts.get("error")) and not diagnose(error, "").may_pass:
                raise urllib3.exceptions.MaxRetryError(facts["_pool"], args[1], error) from error
            return super().increment(*args, **facts)

    retries = Retry(
        total=_ATTEMPTS,
        connect=2,
        backoff_factor=_BACKOFF_S,
        backoff_jitter=_BACKOFF_S,
        backoff_max=_LONGEST_BACKOFF_S,
        status_forcelist=_BUSY_STATUS,
        allowed_methods=None,
        retry_after_max=_LONGEST_BACKOFF_S,
        raise_on_status=False,
    )
    io = PatientIO(timeout=_TIMEOUT_S, max_retries=retries)
    io.session.mount("https://", Trusting(max_retries=retries))
    return io
