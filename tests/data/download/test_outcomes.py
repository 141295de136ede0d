from __future__ import annotations

import errno
import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from stylegan_t.data.download.addresses import ForbiddenAddress
from stylegan_t.data.download.outcomes import explain
from stylegan_t.data.download.reasons import meaning
from stylegan_t.errors import SettingsError

KEY = ConnectionKey("a.test", 80, False, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "reason", "again"),
    [
        (aiohttp.ConnectionTimeoutError(), "timeout_connect", True),
        (aiohttp.SocketTimeoutError(), "timeout_read", True),
        (TimeoutError(), "timeout_total", True),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_AGAIN, "later")), "dns_failed", True),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "none")), "dns_failed", False),
        (aiohttp.ClientConnectorError(KEY, ForbiddenAddress("10.0.0.1")), "forbidden_address", False),
        (aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNREFUSED, "refused")), "connection_failed", True),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("old")), "tls_failed", False),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "wrong version")), "tls_failed", False),
        (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), "connection_reset", True),
        (aiohttp.ServerDisconnectedError(), "connection_reset", True),
        (ConnectionResetError(), "connection_reset", True),
        (aiohttp.ClientPayloadError(), "truncated", True),
        (aiohttp.InvalidURL("a"), "bad_url", False),
        (ValueError("port out of range"), "bad_url", False),
        (aiohttp.http.HttpProcessingError(message="?"), "bad_response", False),
    ],
)
def test_what_an_exception_means_and_whether_another_try_may_help(error, reason, again):
    failure = explain(error)
    assert (failure.reason, failure.again) == (reason, again)
    assert meaning(failure.reason)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_what_is_wrong_here_is_blamed_on_no_row(number):
    with pytest.raises(SettingsError, match=r"too many open files.*ulimit"):
        explain(aiohttp.ClientConnectorError(KEY, OSError(number, "Too many open files")))
