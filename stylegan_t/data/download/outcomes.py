"""What can come of a request: a body, another address, or a failure; and what an exception means."""

from __future__ import annotations

import errno
from typing import NamedTuple

import aiohttp
from yarl import URL

from stylegan_t.data.download.addresses import ForbiddenAddress
from stylegan_t.data.download.budget import Loan
from stylegan_t.data.download.names import is_passing
from stylegan_t.errors import SettingsError

OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


class Body(NamedTuple):
    """What came, and the memory that it takes, to be given back."""

    data: bytes
    loans: list[Loan]

    def give_back(self) -> None:
        """Give the memory back, once."""
        for loan in self.loans:
            loan.give_back()


class Redirect(NamedTuple):
    """Where to ask instead."""

    to: URL


class Failure(NamedTuple):
    """Why nothing came.

    Attributes:
        reason: One of ``reasons``.
        again: Whether another try may help.
        wait_seconds: How long the server asks to be left alone before.
    """

    reason: str
    again: bool = False
    wait_seconds: float = 0.0

    @property
    def is_unreached(self) -> bool:
        """Whether nobody was reached: no name server, or nobody at the address (of no address, a name server told)."""
        return self.again and self.reason in ("dns_failed", "connection_failed", "timeout_connect")

    @property
    def is_silence(self) -> bool:
        """Whether not a word came back."""
        return self.is_unreached or self.reason == "timeout_read"


Outcome = Body | Redirect | Failure

MEANINGS: tuple[tuple[type[Exception], Failure], ...] = (
    (aiohttp.ConnectionTimeoutError, Failure("timeout_connect", again=True)),
    (aiohttp.SocketTimeoutError, Failure("timeout_read", again=True)),
    (TimeoutError, Failure("timeout_total", again=True)),
    (aiohttp.ClientSSLError, Failure("tls_failed")),  # some are ValueErrors
    (ValueError, Failure("bad_url")),  # what the parts below aiohttp do not accept: a host's name, a port
    (aiohttp.ClientConnectorError, Failure("connection_failed", again=True)),
    (aiohttp.ClientPayloadError, Failure("truncated", again=True)),
    (aiohttp.ClientResponseError, Failure("bad_response")),
    (aiohttp.http.HttpProcessingError, Failure("bad_response")),
    (OSError, Failure("connection_reset", again=True)),
    (aiohttp.ClientError, Failure("connection_reset", again=True)),
)
"""What an exception of a request tells, the first that fits."""

NO_ANSWERS = frozenset({"dns_failed", "forbidden_address", *(failure.reason for _, failure in MEANINGS)})
"""Reasons that tell of no answer, or of none that only the host itself gives."""

EXPECTED = (OSError, ValueError, aiohttp.ClientError, aiohttp.http.HttpProcessingError)
"""What requests raise."""


def is_answer(outcome: Outcome) -> bool:
    """Whether the host answered, with a picture or not: it is there, and so is the way to it."""
    return not isinstance(outcome, Failure) or outcome.reason not in NO_ANSWERS


def explain(error: Exception) -> Failure:
    """What a failed request's exception means.

    Raises:
        SettingsError: It is no trouble of the server's, nor of the way there.
    """
    if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
        raise SettingsError(
            "too many open files for download.fetching.max_connections: lower it, or raise `ulimit -n`; "
            "the same command then goes on"
        ) from None
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Failure("dns_failed", again=is_passing(error.os_error))
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ForbiddenAddress):
        return Failure("forbidden_address")
    return next(failure for kind, failure in MEANINGS if isinstance(error, kind))
