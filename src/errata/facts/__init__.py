"""What is to be written into a model: facts, their questions, and every file format that they are read from.

A fact enters here and nowhere else; whatever is wrong with it is reported with its file, line and field. No torch.
"""

from errata.facts import wording
from errata.facts.catalog import find_facts, sample_facts
from errata.facts.contradictions import Contradiction, contradictions
from errata.facts.fact import Fact, fact_from_json
from errata.facts.joining import join_of, joined
from errata.facts.preserving import with_edit_prompts, with_preserve_prompts
from errata.facts.probes import Neighbor, Probe
from errata.facts.reading import Problem, check_facts, read_facts, write_facts
from errata.facts.statements import Apart, statements_apart
from errata.facts.templates import relation_of, template_of, templates_by_relation
from errata.facts.wording import kind, short

__all__ = [
    "Apart",
    "Contradiction",
    "Fact",
    "Neighbor",
    "Probe",
    "Problem",
    "check_facts",
    "contradictions",
    "fact_from_json",
    "find_facts",
    "join_of",
    "joined",
    "kind",
    "read_facts",
    "relation_of",
    "sample_facts",
    "short",
    "statements_apart",
    "template_of",
    "templates_by_relation",
    "with_edit_prompts",
    "with_preserve_prompts",
    "wording",
    "write_facts",
]
