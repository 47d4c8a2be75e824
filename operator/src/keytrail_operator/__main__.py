"""`python -m keytrail_operator`."""

import sys

from keytrail_operator.cli import main

sys.exit(main())
