#!/usr/bin/env python3
"""Runs the commands that a page shows and writes what they print today into the page.

usage: tools/refresh_docs.py build/bin/tandem docs/memory.md
A block is refreshed when its fence is ```console and its first line is "$ tandem …".
"""

import pathlib
import re
import subprocess
import sys

BLOCK = re.compile(r"```console\n\$ tandem (?P<arguments>[^\n]*)\n.*?```", re.DOTALL)


def main() -> None:
    binary, page = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    root = pathlib.Path(__file__).resolve().parent.parent

    def refreshed(block: re.Match) -> str:
        arguments = block["arguments"]
        result = subprocess.run([binary, *arguments.split()], cwd=root, capture_output=True, text=True)
        text = f"```console\n$ tandem {arguments}\n{result.stdout}{result.stderr}"
        if result.returncode != 0:
            text += f"$ echo $?\n{result.returncode}\n"
        return text + "```"

    page.write_text(BLOCK.sub(refreshed, page.read_text()))


if __name__ == "__main__":
    main()
