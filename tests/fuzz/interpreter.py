"""Says plainly when the fuzzer cannot be installed here, before pip does so in a page of text. For any Python."""

import platform
import sys

SUPPORTED = ("CPython", "Linux", "x86_64")
FIRST, BEHIND_LAST = (3, 11), (3, 15)

if __name__ == "__main__":
    here = (platform.python_implementation(), platform.system(), platform.machine())
    if here != SUPPORTED or not FIRST <= sys.version_info < BEHIND_LAST:
        sys.exit(
            "make fuzz: atheris, the fuzzer, has wheels for CPython 3.11 to 3.14 on Linux on x86-64, and this is "
            f"{here[0]} {platform.python_version()} on {here[1]} on {here[2]}; PYTHON=... names another one"
        )
