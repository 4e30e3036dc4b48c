"""Base class of the sections of settings."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from s2cube.config.wording import explain


class Section(BaseModel):
    """Base class of the sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    @classmethod
    def setting_names(cls) -> list[str]:
        """Return the keys of the settings."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Validate settings by key, with values in Python.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is not valid.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise explain(error, cls, lambda loc: str(loc[0]) if loc else cls.__name__) from None

    @classmethod
    def of_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Validate the arguments of a function that are settings of this section.

        Parameters
        ----------
        arguments
            All arguments by name: the result of ``locals()`` at the beginning of the function.

        Raises
        ------
        ConfigError
            If a value is not valid.
        """
        return cls.of({key: arguments[key] for key in cls.setting_names()})
