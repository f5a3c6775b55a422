"""The editor that is shipped with Errata."""

import errata
from errata.almanac.world import draw_entries, world_facts
from errata.methods.mend.store import load_editor, shipped_folder
from errata.methods.mend.trainer import training_settings as training_settings_for


def test_the_shipped_editor_writes_facts_of_the_half_that_it_was_not_trained_on() -> None:
    model = errata.load("almanac")
    facts = world_facts("held-out", 10, seed=1)
    scores = errata.evaluate(model, facts, errata.edit(model, facts, "mend"), generate=False).scores()
    for name, least in (
        ("efficacy_success", 0.7),
        ("specificity_accuracy", 0.7),
        ("unrelated_accuracy", 0.9),
    ):
        score = scores[name]
        assert score is not None
        assert score.mean >= least, name


def test_the_shipped_editor_is_what_its_preset_trains_on_the_development_half() -> None:
    model = errata.load("almanac")
    trained = load_editor("shipped")
    settings, _ = training_settings_for(model, {})
    assert trained.settings == settings
    assert trained.origin.fingerprint == model.fingerprint
    assert trained.origin.training["facts"] == len(draw_entries("development", None, 0))
    assert sum(file.stat().st_size for file in shipped_folder().iterdir()) < 3_000_000
