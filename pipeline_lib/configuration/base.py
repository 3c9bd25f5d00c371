"""The base of every configuration model: unknown keys are fatal, values are frozen."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the configuration. Unknown keys and implicit conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)
