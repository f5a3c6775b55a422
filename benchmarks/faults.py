"""What happens when things go wrong: `python benchmarks/faults.py [WHICH ...] --output DIR`.

WHICH: kills, disk, damage, together, hostile, fuzz; without one all of them run. What is finished is in
DIR/faults.json; the same command goes on from there. docs/faults.md has the figures. A run is a child of this process
(fork), so no kill costs a start of Python.
"""

import argparse
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import psutil
import torch
from safetensors import safe_open

from errata.edits import load_edit
from errata.errors import ErrataError
from errata.evaluation import evaluate
from errata.facts import Fact, write_facts
from errata.models import loading
from errata.moments import CovarianceRecipe, moment_path
from errata.moments import collection as covariance
from errata.passes import prompts
from errata.planning import edit as make_edit
from errata.runtime import CACHE_VARIABLE
from families import CONTEXTS, SENTENCES, SETTINGS, tiny_model
from hostile import HOSTILE, fuzz_edits, fuzz_facts, small_edit

KILLS = 20
CHUNK = 1000
"""Random inputs between two savings."""
NAMES = ("Orin", "Mira", "Jonas", "Edda", "Hale")
WORDS = ("violin", "harp", "river", "council", "lawyer")
PASS_TOKENS = 512
"""Tokens of a pass of the tiny model: many small batches, so that a kill falls between any two of them."""

MODEL = tiny_model("gpt2")
FACTS = [
    Fact("{} plays the", f"{NAMES[number % 5]} {number}", WORDS[number % 5], WORDS[(number + 1) % 5])
    for number in range(500)
]
TEXTS = [f"{SENTENCES[number % 5]} {number}" for number in range(600)]


def edit_of(folder: Path) -> dict[str, Any]:
    """A 500-fact edit: its bytes, less the time at which it was made."""
    values = {**SETTINGS, "values.steps": 2}
    if not (folder / "edit").exists():
        found = make_edit(
            MODEL, FACTS, "pmet", values, contexts=CONTEXTS, covariance=moments(), keep_in=folder / "kept"
        )
        found.save(folder / "edit")
    about = json.loads((folder / "edit" / "edit.json").read_text())
    del about["created"]
    return {"weights": (folder / "edit" / "edit.safetensors").read_bytes().hex(), "about": about}


def covariance_of(folder: Path) -> dict[str, Any]:
    """Second moments of two sites over 600 texts: every number, and what the files say."""
    sites = [MODEL.site("ffn", layer) for layer in (1, 2)]
    covariance.SAVE_SECONDS = 0.0
    if not all(moment_path(folder, site.path).exists() for site in sites):
        covariance.collect(
            MODEL,
            sites,
            TEXTS,
            folder=folder,
            corpus="faults",
            samples=600,
            batch_tokens=PASS_TOKENS,
            replace=True,
        )
    return {site.path: moment_content(moment_path(folder, site.path)) for site in sites}


def evaluation_of(folder: Path) -> dict[str, Any]:
    """An evaluation of 500 facts before and after an edit: the bytes of its file."""
    file = folder / "results.jsonl"
    prompts.TOKENS_IN_CACHE["cpu"] = PASS_TOKENS
    if not file.exists():
        edit = load_edit(edited())
        evaluate(MODEL, FACTS, edit, trustworthy=False, keep_in=folder / "kept").save(file)
    return {"results": file.read_text()}


JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "edit": edit_of,
    "covariance": covariance_of,
    "evaluation": evaluation_of,
}
WORK = Path(tempfile.gettempdir()) / f"errata-faults-{os.getpid()}"


def moments() -> Path:
    """The second moments of the tiny model that the edits use."""
    return WORK / "moments"


def edited() -> Path:
    """An edit of all facts."""
    return WORK / "edited" / "edit"


def moment_content(path: Path) -> dict[str, Any]:
    """All of a file of second moments; its header's entries have no order."""
    with safe_open(path, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name).tolist() for name in opened.keys()}  # noqa: SIM118
        return {"header": dict(sorted((opened.metadata() or {}).items())), **tensors}


# --- children ----------------------------------------------------------------------------------------


def child(work: Callable[[], object], told: Path | None = None) -> int:
    """Run something in a child; what it returns is written as JSON to `told`, an error as text. The child's id."""
    process = os.fork()
    if process:
        return process
    code = 0
    try:
        found = work()
        if told is not None:
            told.write_text(json.dumps(found))
    except BaseException as error:
        code = 2 if isinstance(error, ErrataError | OSError) else 3
        if told is not None:
            told.write_text(json.dumps({"error": type(error).__name__, "text": str(error)}))
        if code == 3:
            traceback.print_exc()
    os._exit(code)


def wait(process: int) -> tuple[int, float]:
    """How a child ended (minus the signal that killed it), and its CPU seconds."""
    _, status, usage = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def finished(job: str, folder: Path) -> tuple[dict[str, Any], float]:
    """What a job finds in a child that runs to its end, and its CPU seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "told.json"
    code, seconds = wait(child(lambda: JOBS[job](folder), told))
    found = json.loads(told.read_text())
    if code:
        raise SystemExit(f"{job} in {folder} ended with {code}: {found}")
    return found, seconds


def kill_at(job: str, folder: Path, seconds: float) -> bool:
    """Start a job and kill -9 it once it has used so many CPU seconds; whether it was still running then."""
    folder.mkdir(parents=True)
    process = child(lambda: JOBS[job](folder))
    watched = psutil.Process(process)
    while watched.status() != psutil.STATUS_ZOMBIE:
        used = watched.cpu_times()
        if used.user + used.system >= seconds:
            os.kill(process, signal.SIGKILL)
            break
        time.sleep(0.01)
    return wait(process)[0] == -signal.SIGKILL


# --- what goes wrong -----------------------------------------------------------------------------------


def kills(job: str, count: int) -> dict[str, Any]:
    """Kill a job at so many random moments; each is run again and must find what an undisturbed run finds."""
    chance = random.Random(f"faults {job}")
    whole, seconds = finished(job, WORK / f"{job}-whole")
    same, again, tries = 0, 0.0, 0
    while tries < count:
        folder = WORK / f"{job}-{tries}"
        moment = chance.uniform(0, seconds)
        if not kill_at(job, folder, moment):
            subprocess.run(["rm", "-rf", str(folder)], check=True)
            continue
        tries += 1
        found, more = finished(job, folder)
        same += found == whole
        again += more
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return {
        "kills": tries,
        "same": same,
        "cpu_of_one_run": round(seconds, 2),
        "cpu_to_finish": round(again / tries, 2),
    }


def refused(work: Callable[[], object], name: str, told: Path) -> str:
    """What a child says when it fails as it should: an error of Errata's or the system's that names the file."""
    code, _ = wait(child(work, told))
    said = json.loads(told.read_text())
    if code != 2:
        return f"WRONG: ended with {code}: {said}"
    return said["text"] if name in said["text"] else f"WRONG: does not name {name}: {said['text']}"


def disk() -> dict[str, Any]:
    """Write each kind of output where the disk is full or read-only, and again once there is room."""
    found: dict[str, Any] = {}
    edit = load_edit(edited())
    writes: dict[str, Callable[[Path], object]] = {
        "edit": lambda to: edit.save(to / "new"),
        "facts": lambda to: write_facts(to / "new.jsonl", FACTS),
        "results": lambda to: evaluate(MODEL, FACTS[:200], generate=False, trustworthy=False).save(
            to / "new"
        ),
        "covariance": covariance_of,
        "values": lambda to: make_edit(
            MODEL,
            FACTS,
            "pmet",
            {**SETTINGS, "values.steps": 2},
            contexts=CONTEXTS,
            covariance=moments(),
            keep_in=to,
        ),
    }
    for what, write in writes.items():
        for fault in ("full", "read-only"):
            place = WORK / f"disk-{what}-{fault}"
            place.mkdir()
            options = "size=16k" if fault == "full" else "ro"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
            try:
                told = WORK / "told.json"
                text = refused(lambda write=write, place=place: write(place), str(place), told)
                left = [file.name for file in place.rglob("*") if file.name.endswith(".part")]
                subprocess.run(["mount", "-o", "remount,rw,size=64m", str(place)], check=True)
                code, _ = wait(child(lambda write=write, place=place: bool(write(place)), told))
                found[f"{what}, {fault}"] = {
                    "said": text,
                    "left": left,
                    "then": "done" if code == 0 else "WRONG",
                }
            finally:
                subprocess.run(["umount", str(place)], check=True)
    return found


def damage() -> dict[str, Any]:
    """Cut each kind of safetensors file off at ten places."""
    chance = random.Random("faults damage")
    root = WORK / "damage"
    MODEL.model.save_pretrained(root / "model")
    MODEL.tokenizer.save_pretrained(root / "model")
    subprocess.run(["cp", "-r", str(edited()), str(root / "edit")], check=True)
    subprocess.run(["cp", "-r", str(moments()), str(root / "moments")], check=True)
    site = MODEL.site("ffn", 1)
    readers: dict[str, tuple[Path, Callable[[], object]]] = {
        "edit": (root / "edit" / "edit.safetensors", lambda: load_edit(root / "edit")),
        "model": (root / "model" / "model.safetensors", lambda: loading.load(str(root / "model"))),
        "covariance": (
            moment_path(root / "moments", site.path),
            lambda: make_edit(
                MODEL,
                FACTS[:1],
                "pmet",
                {**SETTINGS, "values.steps": 2},
                contexts=CONTEXTS,
                covariance=root / "moments",
            ),
        ),
    }
    found: dict[str, Any] = {}
    for what, (file, read) in readers.items():
        whole = file.read_bytes()
        said: list[str] = []
        for _ in range(10):
            file.write_bytes(whole[: chance.randrange(len(whole))])
            said.append(refused(lambda read=read: bool(read()), file.name, WORK / "told.json"))
        file.write_bytes(whole)
        found[what] = {
            "refused": sum(not text.startswith("WRONG") for text in said),
            "of": 10,
            "last": said[-1],
        }
    found["values"] = damaged_values(chance)
    return found


def damaged_values(chance: random.Random) -> dict[str, Any]:
    """Kept values that are cut off are found anew: the edit is the same."""
    whole, _ = finished("edit", WORK / "edit-whole")
    folder = WORK / "damaged-values"
    finished("edit", folder)
    subprocess.run(["rm", "-rf", str(folder / "edit")], check=True)
    for file in (folder / "kept").iterdir():
        file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])
    return {"same": finished("edit", folder)[0] == whole}


def together() -> dict[str, Any]:
    """Two processes on one cache: second moments are measured once, and two edits of the same facts are the same."""
    corpus = WORK / "corpus.txt"
    corpus.write_text("\n".join(TEXTS))
    os.environ[CACHE_VARIABLE] = str(WORK / "cache")
    sites = [MODEL.site("ffn", layer) for layer in (1, 2)]
    recipe = CovarianceRecipe(corpus=str(corpus), samples=600)

    def measure() -> list[int]:
        passes: list[int] = []
        covariance.ensure(MODEL, sites, recipe, lambda *_: passes.append(1))
        return [len(passes)]

    told = [WORK / f"together-{number}.json" for number in range(2)]
    codes = [wait(process)[0] for process in [child(measure, file) for file in told]]
    passes = [json.loads(file.read_text()) for file in told]

    def one_edit(number: int) -> dict[str, Any]:
        values = {**SETTINGS, "values.steps": 2}
        found = make_edit(
            MODEL, FACTS, "pmet", values, contexts=CONTEXTS, covariance=moments(), keep_in=WORK / "shared"
        )
        found.save(WORK / f"twin-{number}")
        return {"weights": (WORK / f"twin-{number}" / "edit.safetensors").read_bytes().hex()}

    codes += [
        wait(process)[0] for process in [child(lambda n=n: one_edit(n), file) for n, file in enumerate(told)]
    ]
    return {
        "ended": codes,
        "processes that measured": sum(count[0] > 0 for count in passes),
        "edits the same": told[0].read_text() == told[1].read_text(),
    }


def hostile() -> dict[str, Any]:
    """Load each hostile folder; what is said, and by how much the memory of the process grows, in MB."""
    found: dict[str, Any] = {}
    for number, (name, (spoil, said)) in enumerate(HOSTILE.items()):
        folder = WORK / f"hostile-{number}" / "edit"
        small_edit().save(folder)
        spoil(folder)

        def load(folder: Path = folder) -> object:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                load_edit(folder)
            finally:
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
                (folder.parent / "grown").write_text(str(grown))
            return None

        text = refused(load, str(folder), WORK / "told.json")
        grown = round(float((folder.parent / "grown").read_text()), 1)
        found[name] = {"refused": said in text, "MB": grown, "said": text[:300]}
    return found


def fuzz(inputs: int, kept: dict[str, Any], save: Callable[[], None]) -> None:
    """Read so many random files of facts and folders of edits; anything but Errata's own errors ends the program."""
    for what, run in (("facts", fuzz_facts), ("edits", fuzz_edits)):
        count = kept.setdefault(f"fuzz {what}", {"chunks": 0, "read": 0, "refused": 0})
        while count["read"] + count["refused"] < inputs:
            left = inputs - count["read"] - count["refused"]
            found = run(WORK, min(CHUNK, left), count["chunks"])
            count["chunks"] += 1
            count["read"] += found["read"]
            count["refused"] += found["refused"]
            save()
            print(f"fuzz {what}: {count}", flush=True)


def prepare() -> None:
    """What the jobs share: second moments, and an edit."""
    WORK.mkdir()
    sites = [MODEL.site("ffn", layer) for layer in (1, 2)]
    arguments = {"folder": moments(), "corpus": "faults", "samples": 600}
    wait(child(lambda: bool(covariance.collect(MODEL, sites, TEXTS, **arguments))))
    finished("edit", WORK / "edited")


def main() -> None:
    """Run what is asked for and not finished."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ("kills", "disk", "damage", "together", "hostile", "fuzz")
    parser.add_argument("which", nargs="*", help=f"of {', '.join(names)}; without any, all")
    parser.add_argument("--output", type=Path, default=Path("faults"))
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=KILLS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("errata").setLevel(logging.ERROR)
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "faults.json"
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def save() -> None:
        aside = file.with_suffix(".part")
        aside.write_text(json.dumps(kept, indent=1))
        aside.replace(file)

    def once(name: str, work: Callable[[], dict[str, Any]]) -> None:
        if name not in kept:
            kept[name] = work()
            save()
        print(name, json.dumps(kept[name], indent=1), flush=True)

    chosen = arguments.which or names
    try:
        if set(chosen) & {"kills", "disk", "damage", "together"}:
            prepare()
        WORK.mkdir(exist_ok=True)
        if "hostile" in chosen:
            once("hostile", hostile)
        for job in JOBS if "kills" in chosen else ():
            once(f"kills, {job}", lambda job=job: kills(job, arguments.kills))
        for name, work in (("disk", disk), ("damage", damage), ("together", together)):
            if name in chosen:
                once(name, work)
        if "fuzz" in chosen:
            fuzz(arguments.inputs, kept, save)
    finally:
        subprocess.run(["rm", "-rf", str(WORK)], check=True)


if __name__ == "__main__":
    main()
