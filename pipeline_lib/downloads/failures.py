"""How a download can fail: for this item, for now, or for all."""


class FailedError(Exception):
    """This item cannot be had; the message is the cause that is listed. Retried only on request."""


class TransientError(Exception):
    """This attempt failed and another may succeed.

    Args:
        cause: what happened, as it is listed if no attempt succeeds.
        retry_after: seconds that the server asked to wait, or None.
    """

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


class RefusedError(FailedError):
    """The site refuses this client (too many requests, a check for robots): says nothing about the item."""


class StoppedError(Exception):
    """The stage is ending: a signal, a full disk. What is partly there stays for the next run."""


class DiskFullError(StoppedError):
    """No space is left for what is downloaded."""
