#!/usr/bin/env python3
"""Agreement, revocation, lifetimes and locks on a whole fleet (cases_trust.py). Usage: test_trust.py BUILD [WORD]"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import cases_trust  # noqa: E402
import kilnfleet  # noqa: E402

if __name__ == "__main__":
    sys.exit(kilnfleet.main(cases_trust, sys.argv))
