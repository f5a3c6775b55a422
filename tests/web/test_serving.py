"""The server: addresses, the password, the port."""

import pytest

from cli_world import run
from errata.errors import SettingsError
from errata.web import serving


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_another_address_needs_a_password(host: str) -> None:
    with pytest.raises(SettingsError, match="password"):
        serving.check_host(host, None)
    serving.check_host(host, "secret")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    serving.check_host(host, None)
    with pytest.raises(SettingsError, match="empty"):
        serving.check_host(host, "")


def test_the_command_refuses_before_it_loads_anything() -> None:
    done = run("web", "no-such-model", "--host", "0.0.0.0")
    assert done.exit_code == 2
    assert "--password" in done.stderr


def test_a_port_that_is_taken_is_told() -> None:
    with serving.bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(SettingsError, match="--port 0"):
            serving.bind("127.0.0.1", taken.getsockname()[1])
