"""What the YAML files call: facts of a file as the harness's documents, and what is counted of the model's answers.

The file comes as metadata (`--metadata '{"facts": "FILE"}'`) or in the environment variable ERRATA_FACTS. The harness
asks each prompt by itself, so a mean is over prompts; Errata's own scores are over records.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import datasets

from errata.errors import FactError, SettingsError
from errata.facts import Fact, join_of, read_facts

VARIABLE = "ERRATA_FACTS"
Asked = tuple[str, str, str | None]
"""A prompt, the answer that is wanted, and its rival."""
Documents = Mapping[str, datasets.Dataset]


def efficacy(**metadata: object) -> Documents:
    """The prompt of each fact: target_new wanted, target_true its rival."""
    return _documents(metadata, lambda fact: [(fact.question, fact.target_new, fact.target_true)])


def generalization(**metadata: object) -> Documents:
    """Its paraphrases, likewise."""
    return _documents(
        metadata,
        lambda fact: [(prompt, fact.target_new, fact.target_true) for prompt in fact.paraphrase_prompts],
    )


def specificity(**metadata: object) -> Documents:
    """Prompts about other subjects: their own answer wanted, target_new its rival."""
    return _documents(
        metadata,
        lambda fact: [(probe.prompt, probe.target, fact.target_new) for probe in fact.neighborhood],
    )


def count_success(doc: Mapping[str, object], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """`success`: the wanted answer is likelier than its rival; `accuracy`: each of its tokens is the likeliest.

    NOTE: the harness tells the sum of an answer's log-probabilities, not the number of its tokens, so "likelier" is of
    the sum here and of the mean in Errata's own scores. For answers of one token that is the same.
    """
    (wanted, greedy), (rival, _) = results
    return {"success": float(wanted > rival), "accuracy": float(greedy)}


def count_accuracy(doc: Mapping[str, object], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """`accuracy`: every token of the answer is the likeliest one, teacher-forced."""
    return {"accuracy": float(results[0][1])}


def choices(doc: Mapping[str, object]) -> list[str]:
    """The wanted answer and its rival, each behind what joins it to the prompt."""
    return [str(doc["join_wanted"]) + str(doc["wanted"]), str(doc["join_rival"]) + str(doc["rival"])]


def _documents(metadata: Mapping[str, object], ask: Callable[[Fact], Iterable[Asked]]) -> Documents:
    rows = [
        {
            "prompt": prompt,
            "wanted": wanted,
            "rival": rival or "",
            "record": number,
            "join_wanted": join_of(prompt, wanted, fact.join),
            "join_rival": join_of(prompt, rival or "", fact.join),
        }
        for number, fact in enumerate(read_facts(_file(metadata)))
        for prompt, wanted, rival in ask(fact)
    ]
    if metadata.get("rivals"):
        rows = [row for row in rows if row["rival"]]
    if not rows:
        raise FactError(
            f"{_file(metadata)} has no prompts for this task: they are made of prompt, paraphrase_prompts or "
            "neighborhood_prompts, and where a rival is needed of target_true."
        )
    return {"test": datasets.Dataset.from_list(rows)}


def _file(metadata: Mapping[str, object]) -> str:
    found = metadata.get("facts") or os.environ.get(VARIABLE)
    if not isinstance(found, str):
        raise SettingsError(
            'This task reads a file of facts: --metadata \'{"facts": "counterfact.json"}\', or the environment '
            f"variable {VARIABLE}."
        )
    return found
