"""`errata models`."""

from cli_world import answer, run


def test_models_lists_every_family() -> None:
    families = answer("models")["families"]
    assert isinstance(families, list)
    assert {"gpt2", "gptj", "olmo2"} <= {row["model_type"] for row in families}
    assert next(row for row in families if row["model_type"] == "olmo2")["post_norm"]
    assert "self_attn.o_proj" in run("models").stdout
