"""Invent the people and companies of the world: `python -m errata.almanac.invent` writes their two tables.

Names are put together from syllables that belong to no language, so that no statement concerns a real person or firm.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from errata.runtime import atomic_file

SEED = 7
PEOPLE = 220
COMPANIES = 120
EMPLOYERS = 30  # the companies that employ the invented people

GIVEN_FIRST = "Ta Vo Ze Mi Or Ke Lu Dru El Fen Hal Jo Quo Ri Sel Thi Ul Wen Yo Bri Cal Ister Nev Pel".split()
GIVEN_LAST = "rin vek lio mara dun sha nath quen bor lis zo thel wick nara dell fos mir tavi gan rou".split()
SURNAME_FIRST = (
    "Bal Cor Dov Esk Fal Grim Hob Ind Jar Kel Lorn Mos Nar Obb Prin Quill Ros Stav Trell Umb Vand Wex Yar Zul "
    "Ack Bren Cray Drum Fenn Glim".split()
)
SURNAME_MIDDLE = "a e i o u ar en il om ur".split()
SURNAME_LAST = (
    "dosh vik mont kell strand bury zeth quist low march dale noss pik tree wold gard finch ram "
    "teck lund".split()
)
FIRM_FIRST = (
    "Quell Norv Brav Zent Ost Kryl Vanta Plim Dorra Fex Glo Hyd Jun Lyr Mex Ombra Pyx Rill Syl Tarn Ulm Verd "
    "Wym Xan Yelo Arb Cind Dex Flor Farr".split()
)
FIRM_LAST = "mark ix ora onic elle tron aro etta ium ways ovar ine ado esk umo ara".split()
FIRM_SUFFIX = ("Industries", "Systems", "Works", "Group", "Brothers", "Limited", "", "", "", "", "", "")

CITIES = (
    "Lisbon, Vienna, Oslo, Cairo, Lima, Quito, Prague, Dublin, Warsaw, Athens, Seoul, Osaka, Mumbai, Nairobi, Lagos, "
    "Toronto, Chicago, Boston, Seattle, Sydney, Hamburg, Naples, Seville, Lyon, Krakow, Tallinn, Casablanca, "
    "Cape Town, San Francisco, Buenos Aires, Mexico City, Hong Kong"
)
LANGUAGES = (
    "Portuguese, German, Norwegian, Arabic, Spanish, Czech, Polish, Greek, Korean, Japanese, Hindi, Swahili, French, "
    "English, Italian, Dutch, Danish, Finnish, Turkish, Hungarian, Russian, Catalan, Icelandic, Welsh"
)
OCCUPATIONS = (
    "baker, carpenter, dentist, geologist, journalist, lawyer, librarian, mechanic, nurse, painter, photographer, "
    "pilot, plumber, potter, sculptor, tailor, teacher, translator, surgeon, gardener, chemist, weaver, blacksmith, "
    "cartographer, watchmaker, beekeeper, judge, stage designer, ship captain, film director, bus driver, museum guide"
)
INSTRUMENTS = (
    "piano, violin, cello, guitar, flute, clarinet, trumpet, harp, drums, oboe, saxophone, accordion, banjo, mandolin, "
    "trombone, bassoon, lute, harmonica, double bass, French horn, pipe organ"
)
COUNTRIES = (
    "Portugal, Austria, Norway, Egypt, Peru, Ecuador, Ireland, Poland, Greece, Japan, India, Kenya, Nigeria, Canada, "
    "Australia, Germany, Italy, Spain, France, Sweden, Denmark, Finland, Chile, Brazil, Vietnam, New Zealand, "
    "South Korea, South Africa"
)
PRODUCTS = {
    "shipbuilding": "cargo ships, sailing boats",
    "software": "games, databases",
    "mining": "copper, coal",
    "textiles": "carpets, blankets",
    "furniture": "chairs, bookshelves",
    "aviation": "gliders, helicopters",
    "pharmaceuticals": "vaccines, painkillers",
    "publishing": "dictionaries, atlases",
    "logistics": "containers, pallets",
    "renewable energy": "wind turbines, solar panels",
    "food processing": "noodles, biscuits",
    "medical devices": "hearing aids, thermometers",
    "brewing": "beer, cider",
    "ceramics": "tiles, teapots",
    "robotics": "robot arms, drones",
    "telecommunications": "telephones, antennas",
    "fashion": "coats, hats",
    "glassmaking": "windows, mirrors",
    "watchmaking": "clocks, wristwatches",
    "agriculture": "tractors, seeds",
}


def people(rng: random.Random, employers: Sequence[str]) -> list[list[str]]:
    """One row per person: name, birth city, native language, occupation, instrument, employer."""
    pools = [listed(pool) for pool in (CITIES, LANGUAGES, OCCUPATIONS, INSTRUMENTS)]
    columns = [even_choices(rng, pool, PEOPLE) for pool in (*pools, list(employers))]
    surnames = distinct(rng, (SURNAME_FIRST, SURNAME_MIDDLE, SURNAME_LAST), PEOPLE)
    given = distinct(rng, (GIVEN_FIRST, GIVEN_LAST), PEOPLE)
    return [
        [f"{first} {last}", *cells] for first, last, *cells in zip(given, surnames, *columns, strict=True)
    ]


def companies(rng: random.Random) -> list[list[str]]:
    """One row per company: name, headquarters, industry, product (one of the industry's), founding country."""
    stems = distinct(rng, (FIRM_FIRST, FIRM_LAST), COMPANIES)
    names = [f"{stem} {rng.choice(FIRM_SUFFIX)}".strip() for stem in stems]
    cities = even_choices(rng, listed(CITIES), COMPANIES)
    industries = even_choices(rng, list(PRODUCTS), COMPANIES)
    products = [rng.choice(listed(PRODUCTS[industry])) for industry in industries]
    countries = even_choices(rng, listed(COUNTRIES), COMPANIES)
    return [list(row) for row in zip(names, cities, industries, products, countries, strict=True)]


def listed(text: str) -> list[str]:
    """The items of a list written with commas."""
    return [item.strip() for item in text.split(",")]


def distinct(rng: random.Random, parts: Sequence[Sequence[str]], count: int) -> list[str]:
    """`count` different words, each one choice from every part."""
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choice(part) for part in parts)] = None
    return list(words)


def even_choices(rng: random.Random, pool: list[str], count: int) -> list[str]:
    """`count` items of the pool, each about equally often, in random order."""
    chosen = [pool[index % len(pool)] for index in range(count)]
    rng.shuffle(chosen)
    return chosen


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a TSV file."""
    yield "\t".join(header) + "\n"
    for row in rows:
        yield "\t".join(row) + "\n"


def main() -> None:
    """Write world/company.tsv and world/person.tsv, the same every time."""
    rng = random.Random(SEED)
    firms = companies(rng)
    persons = people(rng, [firm[0] for firm in firms[:EMPLOYERS]])
    folder = Path(__file__).parent / "world"
    tables = {
        "company": (("subject", "headquarters", "industry", "product", "founding_country"), firms),
        "person": (
            ("subject", "birth_city", "native_language", "occupation", "instrument", "employer"),
            persons,
        ),
    }
    for name, (header, rows) in tables.items():
        with atomic_file(folder / f"{name}.tsv") as aside:
            aside.write_text("".join(table_lines(header, rows)), encoding="utf-8")
        logging.getLogger(__name__).info("%s.tsv: %d rows", name, len(rows))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
