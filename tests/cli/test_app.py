"""The command line as a whole: quick help, JSON that is alone on stdout, exit codes, bad input in plain sentences."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import errata
from cli_world import World, edit, failed, run
from errata.cli.terminal import EXIT_CODES

# --- help and start ----------------------------------------------------------------------------------


def test_help_loads_no_torch() -> None:
    program = (
        "import sys\nsys.argv = ['errata', 'edit', '--help']\nfrom errata.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n"
        "    heavy = [name for name in ('torch', 'transformers', 'numpy', 'datasets') if name in sys.modules]\n"
        "    sys.exit(str(heavy) if heavy else stop.code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--facts" in done.stdout


def test_help_tells_the_commands_and_the_exit_codes() -> None:
    text = run("--help").stdout
    for word in ("demo", "edit", "apply", "show", "evaluate", "facts", "covariance", "models", "methods"):
        assert word in text
    for code, meaning in EXIT_CODES.items():
        assert str(code) in text
        assert meaning in text


@pytest.mark.parametrize(
    "command", ["edit", "apply", "show", "evaluate", "demo", "models", "methods", "facts check"]
)
def test_every_command_has_examples_and_the_common_options(command: str) -> None:
    text = run(*command.split(), "--help").stdout
    assert text
    assert f"errata {command.split()[0]}" in text.partition("Examples")[2]
    for option in ("--seed", "--quiet", "--json"):
        assert option in text


def test_the_version() -> None:
    assert run("--version").stdout == f"errata {errata.__version__}\n"


def test_a_mistyped_command_is_recognised() -> None:
    assert "Did you mean 'edit'?" in failed("edti")


# --- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "stesp=3"), "Did you mean 'values.steps'?"),
        (("--set", "layers=2-9"), "blocks 0 to 3"),
        (("--set", "steps"), "Write name=value"),
        (("--set", "spread.share=evenly"), "'sqrt', 'even'"),
        (("--preset", "almanack"), "Did you mean 'almanac'?"),
        (("--method", "pmte"), "Did you mean 'pmet'?"),
        (("--device", "toaster"), "Device 'toaster' cannot be used"),
        (("--dtype", "float8"), "Unknown dtype 'float8'"),
        (("--contexts", "nothing.json"), "no file of contexts nothing.json"),
    ],
)
def test_wrong_settings(world: World, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    output = tmp_path / "out"
    assert expected in failed(*edit(world, output, *words))
    assert not output.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[", "cannot be read"),
        ('{"a": 1}', "not a JSON list of texts"),
        ("[1]", "not a JSON list of texts"),
        ('["I think."]', "first context must be the empty text"),
    ],
)
def test_wrong_contexts(world: World, tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "contexts.json"
    file.write_text(text, encoding="utf-8")
    assert expected in failed(*edit(world, tmp_path / "out", "--contexts", file))


def test_an_output_that_exists(world: World, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep me", encoding="utf-8")
    for words in (
        edit(world, tmp_path / "out"),
        ("apply", world.model, world.edit, "--output", tmp_path / "out"),
        ("evaluate", world.model, "--facts", world.facts, "--output", tmp_path / "out"),
    ):
        assert "exists already" in failed(*words)
    assert (tmp_path / "out" / "mine").read_text(encoding="utf-8") == "keep me"


def test_an_output_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "is a file, not a folder" in failed(*edit(world, tmp_path / "file" / "out"), code=3)


def test_a_full_disk(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    assert "No space left on device" in failed(*edit(world, tmp_path / "out"), code=3)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"])


def test_memory_that_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(errata, "evaluate", ended, raising=False)
    message = failed("evaluate", world.model, "--facts", world.facts, code=3)
    assert "Out of memory" in message
    assert "--dtype bfloat16" in message


def test_stopped_by_ctrl_c(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("errata.planning.plan.Settled.run", stopped)
    output = tmp_path / "out"
    message = failed(*edit(world, output), code=130)
    assert f"Stopped. {output} was not written." in message
    assert "the same command goes on from there" in message
    assert not output.exists()


def test_a_family_that_cannot_be_edited(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    for file in Path(world.model).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mixtral"}), encoding="utf-8")
    message = failed("evaluate", folder, "--facts", world.facts)
    assert "of family mixtral, in which no block can be edited" in message
    assert "docs/families.md" in message


def test_a_checkpoint_that_is_not_there(world: World) -> None:
    assert "There is no folder ./nowhere" in failed("evaluate", "./nowhere", "--facts", world.facts)


def test_a_covariance_of_another_model(world: World, tmp_path: Path) -> None:
    moments = tmp_path / "moments"
    moments.mkdir()
    for file in world.moments.glob("*.safetensors"):
        tensors = load_file(file)
        save_file(
            {**tensors, "second_moment": tensors["second_moment"][:8, :8].contiguous()}, moments / file.name
        )
    words = list(edit(world, tmp_path / "out"))
    words[words.index(world.moments)] = moments
    assert "belongs to another model" in failed(*words)


def test_a_covariance_with_nan(world: World, tmp_path: Path) -> None:
    moments = tmp_path / "moments"
    moments.mkdir()
    for file in world.moments.glob("*.safetensors"):
        tensors = load_file(file)
        tensors["second_moment"][0, 0] = float("nan")
        save_file(tensors, moments / file.name)
    words = list(edit(world, tmp_path / "out"))
    words[words.index(world.moments)] = moments
    assert "not a number" in failed(*words)


def test_a_covariance_that_is_not_there(world: World, tmp_path: Path) -> None:
    words = list(edit(world, tmp_path / "out"))
    words[words.index(world.moments)] = tmp_path / "none"
    assert "errata covariance collect" in failed(*words)
