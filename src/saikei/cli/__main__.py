"""`python -m saikei.cli` does what `saikei` does."""

import sys

from saikei.cli import main

sys.exit(main())
