#!/usr/bin/env python3
"""Builds on a whole fleet (cases_faults.py). Usage: test_faults.py BUILD [WORD]"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import cases_faults  # noqa: E402
import kilnfleet  # noqa: E402

if __name__ == "__main__":
    sys.exit(kilnfleet.main(cases_faults, sys.argv))
