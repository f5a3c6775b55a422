"""Records for the tests of metrics."""

from errata.facts.fact import Fact

FACT = Fact(
    "{} lives in",
    "Jonas",
    "Port Avel",
    "Lindale",
    generation_prompts=("Jonas lives in", "From his window Jonas sees"),
    reference_texts=("Orin lives in Port Avel by the sea.",),
    relation_id="home",
)
