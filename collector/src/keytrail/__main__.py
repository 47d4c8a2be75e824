"""`python -m keytrail`."""

import sys

from keytrail.cli import main

sys.exit(main())
