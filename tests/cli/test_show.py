"""`errata show`."""

from typing import Any

from cli_world import World, answer, flat, run


def test_show_tells_facts_settings_and_changes(world: World) -> None:
    said = flat(run("show", world.edit).stdout)
    for words in (
        "4 facts",
        "by pmet",
        "Orin Vasker plays the violin harp",
        "layers=[1,2]",
        "write=[ffn]",
        "mlp.c_proj",
    ):
        assert words in said


def test_show_in_json(world: World) -> None:
    told = answer("show", world.edit)
    facts: Any = told["facts"]
    assert facts[1]["target_new"] == "violin"
    assert told["method"] == "pmet"


def test_show_of_something_else(world: World) -> None:
    done = run("show", world.moments)
    assert done.exit_code == 2
    assert "is not an edit" in flat(done.stderr)
