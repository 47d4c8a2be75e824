"""`python -m support.components build [NAME ...]`: build the real components before the tests, and show progress."""

import argparse
import os
import sys

from support.components.build import COMPONENTS, BuildFailed, Unavailable, build


def main() -> int:
    """Build what was named, or what every run needs; 1 when that failed. A machine that cannot is told so."""
    parser = argparse.ArgumentParser(prog="python -m support.components", description=__doc__)
    parser.add_argument("command", choices=["build"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMPONENTS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(COMPONENTS):
        parser.error(f"no component is called {', '.join(sorted(unknown))}; there are {', '.join(COMPONENTS)}")
    try:
        for name in arguments.names or [name for name, one in COMPONENTS.items() if not one.seldom]:
            build(COMPONENTS[name])
    except Unavailable as error:
        sys.stderr.write(f"components: {error}\n")
        return int(os.environ.get("KEYTRAIL_REQUIRE_CLUSTER") == "1")
    except BuildFailed as error:
        sys.stderr.write(f"components: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
