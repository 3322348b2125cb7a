"""Download of a file over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib import request
from urllib.error import HTTPError

from segkd.errors import UserError

_CHUNK_BYTES = 2**16
_TIMEOUT_SECONDS = 60  # without a byte


def fetch_file(url: str, path: Path, max_bytes: int, report_progress: Callable[..., None]) -> None:
    """Fetch a file, continuing an interrupted download if the server can.

    Args:
        url: An http or https address.
        path: Where to write; bytes that are already there are kept.
        max_bytes: Size limit.
        report_progress: Called with `completed`, the bytes on disk, and `total`, the file's size or None if unknown.

    Raises:
        UserError: The server cannot be reached or has no such file, the connection broke (the received bytes are kept), or the
            file is too large.
    """
    existing = path.stat().st_size if path.exists() else 0
    response = _open_url(url, existing)
    if response is None:
        return
    with response:
        is_continued = response.status == HTTPStatus.PARTIAL_CONTENT
        completed = existing if is_continued else 0
        length = response.headers["Content-Length"]
        total = completed + int(length) if length else None
        with path.open("ab" if is_continued else "wb") as file:
            for chunk in _read_chunks(response, url):
                completed += file.write(chunk)
                report_progress(completed=completed, total=total)
                if completed > max_bytes:
                    break
    if completed > max_bytes:
        path.unlink()
        raise UserError(f"{url} sends more than {max_bytes} bytes, so it is not the requested file; check url=URL")
    if total is not None and completed < total:
        raise _make_interruption_error(url, f"after {completed} of {total} bytes")


def _open_url(url: str, start: int) -> HTTPResponse | None:
    """Request a file from byte `start` on; return None if it has no more bytes."""
    headers = {"User-Agent": "segkd", **({"Range": f"bytes={start}-"} if start else {})}
    get = request.Request(url, headers=headers)  # noqa: S310  `_build_opener` supports HTTP and HTTPS only
    try:
        response: HTTPResponse = _build_opener().open(get, timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return None
        raise UserError(f"{url} answered {error.code} {error.reason}; try later, or a mirror with url=URL") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"cannot reach {url} ({reason}); check the connection, or try a mirror with url=URL") from None
    return response


def _build_opener() -> request.OpenerDirector:
    """Build an opener for HTTP and HTTPS that uses the environment's proxies; redirects to other protocols fail."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
        request.HTTPDefaultErrorHandler,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _read_chunks(response: HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK_BYTES):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _make_interruption_error(url, f"({error})") from None


def _make_interruption_error(url: str, detail: str) -> UserError:
    return UserError(f"{url} broke off {detail}; run the same command again to continue")
