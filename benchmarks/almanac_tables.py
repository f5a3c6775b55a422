"""Put what `almanac_methods.py` stored into a page: `python benchmarks/almanac_tables.py docs/results.md --output DIR`.

Every table of the page stands between two comments; the first has the arguments of `almanac_methods.py`, without
`--output` (the held-out half) or with `--half development`, whose runs are read from `--development`:

    <!-- table: ablations --edits 10 100 -->
    <!-- end -->

Of docs/two-site.md, with `--program two_site.py`, the same; `models @NAME` is read from `--other NAME=DIR`.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

TABLE = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Fill in every table of the page; nothing else of it changes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="the folder of almanac_methods.py")
    parser.add_argument("--development", type=Path, help="the same for runs on the development half")
    parser.add_argument("--program", default="almanac_methods.py", help="whose tables they are")
    parser.add_argument("--other", nargs="+", default=[], metavar="NAME=DIR")
    arguments = parser.parse_args()
    others = dict(text.split("=", 1) for text in arguments.other)
    program = Path(__file__).with_name(arguments.program)

    def filled(found: re.Match[str]) -> str:
        asked = shlex.split(found[2])
        folder = arguments.development if "development" in asked else arguments.output
        named = [word for word in asked if word.startswith("@")]
        folder = others[named[0][1:]] if named else folder
        words = [word for word in asked if word not in named]
        command = [sys.executable, str(program), *words, "--output", str(folder), "--print"]
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        return f"{found[1]}\n{table}\n\n{found[3]}"

    page = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(TABLE.sub(filled, page), encoding="utf-8")


if __name__ == "__main__":
    main()
