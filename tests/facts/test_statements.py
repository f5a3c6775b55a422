"""Other statements about a subject: what is preserved and what is asked share no relation."""

from errata.facts.fact import Fact
from errata.facts.statements import statements_apart

SOURCE = [
    Fact("{} has the capital", "Norway", "Rome", "Oslo", relation_id="capital"),
    Fact("In {} people speak", "Norway", "Thai", "Norwegian", relation_id="language"),
    Fact("{} pays in", "Norway", "yen", "krone", relation_id="currency"),
    Fact("{} was written by", "Emma", "Homer", "Austen", relation_id="author"),
    Fact("{} was painted by", "Guernica", "Homer", "Picasso", relation_id="painter"),
]


def test_the_two_parts_share_no_relation_and_leave_out_what_is_changed() -> None:
    (apart,) = statements_apart(SOURCE[:1], ask=4, preserve=4, source=SOURCE)
    preserved = {template.replace("{}", "Norway") for template in apart.fact.preserve_prompts}
    assert not preserved & set(apart.statements)
    others = {fact.prompt.replace("{}", "Norway") for fact in SOURCE[1:]}
    assert preserved | set(apart.statements) == others
    # relations that the source knows the subject in come first, one in each part
    own = {"In Norway people speak", "Norway pays in"}
    assert len(own & preserved) == len(own & set(apart.statements)) == 1


def test_the_seed_chooses_and_limits_hold() -> None:
    one, two = (
        statements_apart(SOURCE[:1], ask=1, preserve=1, seed=seed, source=SOURCE)[0] for seed in (0, 0)
    )
    assert one == two
    assert len(one.statements) == len(one.fact.preserve_prompts) == 1
    drawn = {
        statements_apart(SOURCE[:1], ask=1, preserve=1, seed=seed, source=SOURCE)[0].statements
        for seed in range(8)
    }
    assert len(drawn) > 1


def test_prompts_that_a_fact_brings_stay_and_their_relations_are_not_asked() -> None:
    fact = Fact(
        "{} has the capital", "Norway", "Rome", preserve_prompts=("{} pays in",), relation_id="capital"
    )
    (apart,) = statements_apart([fact], ask=9, preserve=9, source=SOURCE)
    assert apart.fact.preserve_prompts == ("{} pays in",)
    assert set(apart.statements) == {
        "In Norway people speak",
        "Norway was written by",
        "Norway was painted by",
    }
