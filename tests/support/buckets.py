"""List the objects in the bucket of the tests."""

import obstore
from obstore.store import S3Store


def names(s3: S3Store, prefix: str) -> set[str]:
    return {each["path"].removeprefix(f"{prefix}/") for page in obstore.list(s3, prefix) for each in page}
