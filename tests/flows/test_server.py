"""The Prefect server of our own."""

import subprocess

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import prefect_server


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
