"""`errata models`."""

from cli_world import answer, run
from errata.models import family_rows


def test_models_lists_every_type_edited_or_refused() -> None:
    families = answer("models")["families"]
    assert isinstance(families, list)
    rows = {row["model_type"]: row for row in families}
    assert list(rows) == list(family_rows())
    assert rows["gpt2"]["edited"]
    assert rows["olmo2"]["post_norm"]
    assert rows["gptj"]["parallel"]
    assert "routes each token" in rows["mixtral"]["reason"]
    said = run("models").stdout
    assert "transformer.h" in said
    assert "dense_4h_to_h" in said
    assert "routes each token" in " ".join(said.split())
