"""Published weights, fetched once: the sha256 is checked before a file takes its name, and nothing half-written stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dlv3deploy import __version__
from dlv3deploy.core.cache_folder import cache_folder
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import replacing, require_file, sha256_of
from dlv3deploy.core.progress import say, tracked
from dlv3deploy.train.weights.published import Published, published_called

URL_VARIABLE = "DLV3DEPLOY_WEIGHTS_URL"  # a mirror: the folder of the files instead of the publisher's
TIMEOUT_S = 30.0  # without a byte
BLOCK_BYTES = 1 << 18


def weights_file(name_or_path: str | Path) -> Path:
    """The file that is meant: the path of one, or the name of published weights, which are fetched unless they are here.

    Raises UserError, and CheckFailed as `fetch` does; whether a path exists is its reader's to say.
    """
    path = Path(name_or_path)
    return path if path.is_file() or path.suffix else fetch(published_called(str(name_or_path)))


def require_weights(name_or_path: str | Path) -> None:
    """Raise UserError unless `weights_file` has something to give: a file that is there, or a name; nothing is fetched."""
    path = Path(name_or_path)
    if path.suffix:
        require_file(path, "give a state dict, a name of import-weights --list, or leave it out to start from random weights")
    elif not path.is_file():
        published_called(str(name_or_path))


def fetch(published: Published) -> Path:
    """The file in the cache; downloaded first unless one with the right sha256 is there.

    Raises UserError when it cannot be had, CheckFailed when what came is another file; the cache is then as it was.
    """
    target = cache_folder() / published.file
    if target.is_file():
        if sha256_of(target).startswith(published.sha256):
            return target
        say(f"{target} is not what was published as {published.name}; fetching it again")
    url = f"{os.environ[URL_VARIABLE].rstrip('/')}/{published.file}" if os.environ.get(URL_VARIABLE) else published.url
    say(f"fetching {url} ({published.megabytes:g} MB)")
    digest = sha256()
    with replacing(target) as partial:
        with partial.open("wb") as file:
            for block in _body(url, published):
                digest.update(block)
                file.write(block)
        if not digest.hexdigest().startswith(published.sha256):
            raise CheckFailed(
                f"{url}: its sha256 is {digest.hexdigest()}, {published.name} was published with {published.sha256}; "
                f"nothing of it was kept, {_by_hand(published)}"
            )
    return target


def _body(url: str, published: Published) -> Iterator[bytes]:
    """The bytes behind `url`. Raises UserError unless all that were announced came."""
    with _network_errors(url, published):
        response: HTTPResponse = urlopen(Request(url, headers={"User-Agent": f"dlv3deploy/{__version__}"}), timeout=TIMEOUT_S)
        announced = int(response.headers.get("Content-Length") or 0)
    with response:
        received = 0
        blocks = -(-(announced or round(published.megabytes * 1e6)) // BLOCK_BYTES)
        for block in tracked(_blocks(response, url, published), published.name, blocks):
            received += len(block)
            yield block
    if received < announced:
        raise _unreachable(url, published, f"the connection ended after {received} of {announced} bytes")


def _blocks(response: HTTPResponse, url: str, published: Published) -> Iterator[bytes]:
    while True:
        with _network_errors(url, published):
            block = response.read(BLOCK_BYTES)
        if not block:
            return
        yield block


@contextmanager
def _network_errors(url: str, published: Published) -> Iterator[None]:
    """What goes wrong on the way to `url`, and nothing else, as a UserError."""
    try:
        yield
    except HTTPError as error:
        error.close()
        raise _unreachable(url, published, f"the server answered {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise _unreachable(url, published, f"nothing came for {TIMEOUT_S:g} s") from error
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError; a malformed address a ValueError
        cause = getattr(error, "reason", error)
        if isinstance(cause, TimeoutError):
            raise _unreachable(url, published, f"nothing came for {TIMEOUT_S:g} s") from error
        raise _unreachable(url, published, " ".join(str(cause).split()) or type(cause).__name__) from error


def _unreachable(url: str, published: Published, reason: str) -> UserError:
    return UserError(url, f"could not be fetched ({reason})", f"try again, or {_by_hand(published)}")


def _by_hand(published: Published) -> str:
    folder = cache_folder()
    return f"fetch {published.url} elsewhere and put it into {folder}, or give the path of the file instead of {published.name}"
