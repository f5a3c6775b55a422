"""Data sets by name: from a folder, from a stand-in of the hub, and drawn by a seed."""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import datasets
import pytest

from cli_world import answer, failed, the_world
from errata.errors import FactError
from errata.facts import catalog
from errata.facts.catalog import CATALOG, DataSet, HubSource, find_facts, sample_facts
from errata.facts.reading import read_facts, write_facts
from families import FACTS

REVISION = "0123456789abcdef0123456789abcdef01234567"


def record(number: int) -> dict[str, object]:
    return {
        "case_id": number,
        "requested_rewrite": {
            "prompt": "{} lives in",
            "subject": f"Person {number}",
            "relation_id": "home",
            "target_new": {"str": "Port Avel", "id": "Q1"},
            "target_true": {"str": "Lindale", "id": "Q2"},
        },
        "paraphrase_prompts": [],
        "neighborhood_prompts": [],
    }


Rows = Mapping[str, Iterable[Mapping[str, object]]]


class Hub:
    """Stands in for `datasets.load_dataset`."""

    def __init__(self, splits: Rows) -> None:
        self.splits, self.asked = splits, list[tuple[str, str]]()

    def __call__(self, identity: str, revision: str) -> Rows:
        self.asked.append((identity, revision))
        return self.splits


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    stand_in = Hub({"train": [record(3), record(1)], "test": [record(2)]})
    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(CATALOG, "small", DataSet("small", "small", "x", HubSource("o/small", REVISION, 3)))
    return stand_in


class TestHub:
    def test_all_splits_are_read_in_the_order_of_their_numbers(self, hub: Hub) -> None:
        facts = read_facts(find_facts("small"))
        assert [fact.case_id for fact in facts] == [1, 2, 3]
        assert facts[0].target_id == "Q1"
        assert hub.asked == [("o/small", REVISION)]

    def test_the_second_time_it_comes_from_the_cache(self, hub: Hub) -> None:
        assert find_facts("small") == find_facts("small")
        assert len(hub.asked) == 1

    def test_a_file_that_changed_is_refused(self, hub: Hub) -> None:
        file = find_facts("small")
        rows = [record(1), record(2), record(4)]
        file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        with pytest.raises(FactError, match="SHA-256"):
            find_facts("small")
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(FactError, match="damaged"):
            find_facts("small")

    def test_rows_of_another_digest_or_number_are_refused_and_not_kept(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for source in (HubSource("o/small", REVISION, 3, "0" * 64), HubSource("o/small", REVISION, 4)):
            monkeypatch.setitem(CATALOG, "small", DataSet("small", "small", "x", source))
            with pytest.raises(FactError, match=r"SHA-256|should have 4"):
                find_facts("small")
        assert not list((catalog.cache_root()).rglob("*.gz"))

    def test_any_data_set_at_a_revision(self, hub: Hub) -> None:
        assert len(read_facts(find_facts(f"someone/facts@{REVISION}"))) == 3
        assert hub.asked == [("someone/facts", REVISION)]

    def test_a_hub_that_cannot_be_reached(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(identity: str, revision: str) -> Rows:
            raise ConnectionError("no network.")

        monkeypatch.setattr(datasets, "load_dataset", fail)
        with pytest.raises(FactError, match=r"no network.* --data-dir"):
            find_facts("counterfact")

    def test_what_the_hub_lacks_is_said(self, hub: Hub) -> None:
        with pytest.raises(FactError, match="no copy on the hub"):
            find_facts("zsre")


class TestFolder:
    @pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
    def test_a_data_set_lies_under_its_name(self, tmp_path: Path, ending: str) -> None:
        write_facts(tmp_path / f"counterfact_neighbors_gpt-j-6b{ending}", FACTS)
        assert read_facts(find_facts("counterfact-neighbors-gpt-j-6b", tmp_path)) == list(FACTS)

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FactError, match=r"no file zsre\.jsonl\.gz"):
            find_facts("zsre", tmp_path)

    def test_a_file_wins_over_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_facts(tmp_path / "zsre", FACTS)
        assert find_facts("zsre", tmp_path / "elsewhere") == Path("zsre")

    def test_a_wrong_name_is_set_right(self) -> None:
        with pytest.raises(FactError, match="Did you mean 'counterfact'"):
            find_facts("countrfact")
        assert find_facts("nowhere/facts.jsonl") == Path("nowhere/facts.jsonl")


class TestSamples:
    def test_trials_of_one_seed_share_nothing_and_together_are_all(self) -> None:
        trials = [sample_facts(range(12), 4, seed=5, trial=trial) for trial in (1, 2, 3)]
        assert sorted(number for trial in trials for number in trial) == list(range(12))

    def test_a_seed_gives_one_sample_and_another_seed_another(self) -> None:
        assert sample_facts(range(50), 10, seed=1) == sample_facts(range(50), 10, seed=1)
        assert sample_facts(range(50), 10, seed=1) != sample_facts(range(50), 10, seed=2)

    def test_a_smaller_sample_begins_a_larger_one(self) -> None:
        assert sample_facts(range(50), 20)[:5] == sample_facts(range(50), 5)

    def test_without_a_count_all_are_taken_as_they_are(self) -> None:
        assert sample_facts(range(5), None) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("count", "trial", "told"), [(4, 4, "there are 12"), (None, 2, "--sample"), (0, 1, "one")]
    )
    def test_what_cannot_be_drawn(self, count: int | None, trial: int, told: str) -> None:
        with pytest.raises(FactError, match=told):
            sample_facts(range(12), count, trial=trial)


class TestCommands:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_facts(tmp_path / "data" / "zsre.jsonl.gz", read_facts(the_world().facts))
        return tmp_path / "data"

    def test_check_tells_what_a_trial_has(self, folder: Path) -> None:
        words = ("facts", "check", "zsre", "--data-dir", folder, "--sample", "2")
        first, second = answer(*words), answer(*words, "--trial", "2")
        assert first["facts"] == len(FACTS)
        assert len(first["sample"]) == len(second["sample"]) == 2  # type: ignore[arg-type]
        assert "Ask for fewer" in failed(*words, "--trial", "3")

    def test_evaluate_asks_the_sample(self, folder: Path) -> None:
        told = answer("evaluate", the_world().model, "-f", "zsre", "--data-dir", folder, "--sample", "2")
        assert told["facts"] == 2

    def test_an_edit_of_a_sample_keeps_its_facts(self, folder: Path, tmp_path: Path) -> None:
        from cli_world import QUICK

        output, world = tmp_path / "edit", the_world()
        known = ("-f", "zsre", "--data-dir", folder, "--sample", "2", "--covariance", world.moments)
        told = answer("edit", world.model, *known, "--output", output, *QUICK)
        assert told["facts"] == 2
        assert read_facts(output / "facts.jsonl") == sample_facts(read_facts(world.facts), 2)
