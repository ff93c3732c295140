"""`python -m unipref`, so that `accelerate launch -m unipref align recipe.yaml` runs on many devices."""

import sys

from unipref.cli import main

if __name__ == "__main__":
    sys.exit(main())
