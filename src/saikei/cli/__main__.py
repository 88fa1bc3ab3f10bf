"""`python -m saikei.cli` is `saikei`."""

import sys

from saikei.cli import main

sys.exit(main())
