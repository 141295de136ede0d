"""Hosts that are asked in vain, time after time: they are soon given up, so that they hold no part up."""

from __future__ import annotations

from stylegan_t.data.download.outcomes import Failure

DOUBTED_AFTER, GIVEN_UP_AFTER = 10, 30
"""Times in vain without an answer between them: then a row is asked for once only, and then not at all."""


class Hosts:
    """How often each host was asked in vain since it last answered."""

    def __init__(self) -> None:
        self._in_vain: dict[str, tuple[int, Failure]] = {}

    def asked_in_vain(self, host: str, failure: Failure) -> None:
        times, _ = self._in_vain.get(host, (0, None))
        self._in_vain[host] = times + 1, failure

    def answered(self, host: str) -> None:
        self._in_vain.pop(host, None)

    def is_doubted(self, host: str) -> bool:
        """Whether a row of this host is tried no second time."""
        return host in self._in_vain and self._in_vain[host][0] >= DOUBTED_AFTER

    def given_up(self, host: str) -> Failure | None:
        """What the host's rows end with, unasked: its last failure; None while it may be asked."""
        times, failure = self._in_vain.get(host, (0, None))
        return failure if times >= GIVEN_UP_AFTER else None
