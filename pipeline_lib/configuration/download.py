"""Where a data set's videos can be fetched from: the optional stage ``download``."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline_lib.configuration.base import Section


class Download(Section):
    """One source of videos, and limits for its use."""

    kind: Literal["files", "archives", "youtube"]
    """``files``: a URL per video; ``archives``: tar parts (CVDF's copies of Kinetics); ``youtube``: yt-dlp by id."""
    urls: str | None = None
    """A list of URLs, a line each, or a CSV with a column ``url`` and, if known, ``path``, ``sha256``, ``md5``,
    ``size`` (bytes). The list may itself be a URL."""
    template: str | None = None
    """A URL with ``{id}``, ``{start}``, ``{end}``, ``{label}``, ``{split}``, filled from ``annotations``."""
    annotations: list[str] = []
    """CSV files with the official columns ``label``, ``youtube_id``, ``time_start``, ``time_end``, ``split`` (an
    ``id`` is enough if the template has no other field)."""
    path: str | None = None
    """Template of a video's path below ``destination``, with the same fields."""
    destination: str
    """The folder that gets the videos; name it under the data set's ``videos`` too."""
    workers: int = Field(default=4, ge=1, le=64)
    """Downloads at a time."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """Over all workers; null does not limit."""
    megabytes_per_second: float | None = Field(default=None, gt=0)
    """Over all workers; null does not limit."""
    retries: int = Field(default=5, ge=0)
    """After so many attempts in a row without new bytes an item has failed."""
    backoff_seconds: float = Field(default=1.0, ge=0)
    """First wait before a retry; doubled each time up to two minutes."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """Longest wait for a server's next bytes."""
    minimum_free_gigabytes: float = Field(default=1.0, ge=0)
    """The stage stops before less than this is left on the destination's disk."""
    keep_archives: bool = False
    """Keep the tar parts after extraction."""
    maximum_height: int = Field(default=480, ge=64)
    """``youtube``: the best format up to this height, pixels."""

    @model_validator(mode="after")
    def _sources_fit(self) -> Self:
        if self.kind == "archives" and (self.urls is None or self.template is not None):
            raise ValueError("kind `archives` needs `urls` (the list of the tar parts) and no `template`")
        if self.kind == "files" and (self.urls is None) == (self.template is None):
            raise ValueError("kind `files` needs either `urls` or `template` with `annotations`")
        if self.kind == "youtube" and self.urls is not None:
            raise ValueError("kind `youtube` takes its ids from `annotations`, not from `urls`")
        if (self.template is not None or self.kind == "youtube") and not self.annotations:
            raise ValueError("`annotations` is empty: the ids come from there")
        return self
