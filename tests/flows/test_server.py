"""The Prefect server of our own."""

import socket
import subprocess

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import USUAL_PORT, port_of_our_own, prefect_server


class Started(Exception):
    """Carries what the server's process would have been given."""


@pytest.fixture
def environment(monkeypatch):
    """What the server's process is given, from what ours has."""

    def start(*_, env, **__):
        raise Started(env)

    def given(**ours):
        monkeypatch.setattr(subprocess, "Popen", start)
        monkeypatch.delenv("PREFECT_SERVER_ANALYTICS_ENABLED", raising=False)
        for name, value in ours.items():
            monkeypatch.setenv(name, value)
        with temporary_settings(restore_defaults=[PREFECT_API_URL]), pytest.raises(Started) as started:
            prefect_server().__enter__()
        return started.value.args[0]

    return given


def test_it_reports_its_use_to_nobody_unless_asked_to(environment):
    assert environment()["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment(PREFECT_SERVER_ANALYTICS_ENABLED="true")["PREFECT_SERVER_ANALYTICS_ENABLED"] == "true"


def test_it_has_the_rest_of_our_environment(environment):
    assert environment(OURS="1")["OURS"] == "1"


def test_none_is_started_where_one_is_configured(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    with temporary_settings({PREFECT_API_URL: "http://elsewhere/api"}), prefect_server() as url:
        assert url == "http://elsewhere/api"


def test_a_second_server_does_not_wait_on_the_port_of_one_that_does_not_listen_yet():
    with port_of_our_own() as first, port_of_our_own() as second:
        assert first != second


def test_a_port_is_free_again_after_its_server():
    with port_of_our_own() as first:
        pass
    with port_of_our_own() as second:
        assert second == first or USUAL_PORT not in (first, second)


def test_a_port_at_which_somebody_listens_is_not_ours():
    with port_of_our_own() as free:
        pass
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", free))
        other.listen()
        with port_of_our_own() as ours:
            assert ours != free
