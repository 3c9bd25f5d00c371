"""Whether a host answers, asked before hours of work depend on it."""

import functools
import socket
import urllib.parse
import urllib.request

TIMEOUT = 2.0
"""Seconds that a host has to answer."""


@functools.cache
def unreachable(host: str) -> str | None:
    """Why a host does not answer on port 443, or None if it does; asked once per process.

    Where the environment names a proxy, the proxy must answer.
    """
    port = 443
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get("https")
    if proxy:
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host, port = parts.hostname or host, parts.port or 80
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return None
