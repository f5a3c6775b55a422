"""`errata methods`."""

from typing import Any, cast

from cli_world import answer, failed, flat, run
from errata.methods.registry import METHODS
from errata.settings.schema import settings_of


def test_methods_tells_of_each_what_it_writes_and_what_a_fact_costs() -> None:
    methods: Any = answer("methods")["methods"]
    assert [row["name"] for row in methods] == list(METHODS)
    listed = flat(run("methods").stdout)
    for row in methods:
        method = METHODS[row["name"]]
        assert (row["order"], row["presets"] != []) == (method.order, True)
        for told in ("summary", "source", "writes", "cost"):
            assert row[told] == getattr(method, told)
            assert row[told] in listed
    assert "facts one by one" in listed


def test_methods_tells_of_one_its_presets_and_settings() -> None:
    one = run("methods", "memit").stdout
    assert "solve.covariance_weight" in one
    assert "llama-2-iterative 4.0" in one
    assert "AAAI 2024" not in one
    (row,) = cast("list[dict[str, Any]]", answer("methods", "memit")["methods"])
    assert "almanac" in [preset["name"] for preset in row["presets"]]


def test_methods_shows_the_tree_of_settings_and_what_each_does() -> None:
    shown = flat(run("methods", "two_site").stdout)
    (row,) = cast("list[dict[str, Any]]", answer("methods", "two_site")["methods"])
    assert {"early.layers", "early.values.steps", "late.solve.covariance_weight"} <= set(row["settings"])
    for one in settings_of(METHODS["two_site"].settings):
        assert one.name in row["settings"]
        assert one.help.split()[0] in shown
    assert row["presets"][0]["values"]["late.layers"] == "7-9"


def test_an_unknown_method() -> None:
    assert "Did you mean 'pmet'?" in failed("methods", "pmte")
