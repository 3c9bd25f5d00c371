"""Parameters of the motion methods: each method has a model; the message about a wrong key names the nearest one."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline_lib.configuration.base import Section
from pipeline_lib.errors import UserError

P = TypeVar("P", bound=Section)


def parse(model: type[P], values: Mapping[str, Any], method: str) -> P:
    """Check the ``parameters`` of a motion kind against the model of its method.

    Raises:
        UserError: an unknown key (the nearest valid one is named), a wrong type or a value out of range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        valid = [field.alias or name for name, field in model.model_fields.items()]
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)
            hint = f"Did you mean `{near[0]}`? Valid ones: " if near else "Valid ones: "
            hint += ", ".join(sorted(valid)) or "none"
            raise UserError(f"motion method {method}: unknown parameter `{key}`. {hint}.") from error
        raise UserError(
            f"motion method {method}: parameter `{key}` has the value {first['input']!r}: {first['msg']}."
        ) from error
