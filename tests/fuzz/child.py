"""One target under libFuzzer: the process that `__main__` starts. Ends when the time is over, or with the first crash.

In: `python -m fuzz.child TARGET FOLDER OPTION...`, libFuzzer's own options last. Out: the corpus and the crashing input
in the folder, and libFuzzer's own words on standard error. The product's code is instrumented as it is imported, so
nothing of it may be imported before that.
"""

import hashlib
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

INSTRUMENTED = ["keytrail", "hpack", "google", "email"]
"""Packages: ours, and those that parse for us in Python: headers, JSON as protobuf has it, dates."""


def main() -> None:
    """Fuzz; does not return."""
    name, folder, *options = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
    # Not a plain import: atheris is in the environment of `make fuzz` alone, where mypy and the tests never run.
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz.targets import target

        chosen = target(name)
    logging.disable()
    seeds, dictionary = folder / "seeds", folder / "dictionary"
    for seed in chosen.seeds():
        (seeds / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in chosen.words if word))
    places = [str(folder / place) for place in ("corpus", "seeds", "crashes")]
    atheris.Setup([sys.argv[0], f"-dict={dictionary}", *options, *places], chosen.check)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    """Write a word as a dictionary of libFuzzer has it."""
    return "".join(f"\\x{byte:02X}" for byte in word)


if __name__ == "__main__":
    main()
