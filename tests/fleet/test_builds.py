#!/usr/bin/env python3
"""Builds on a whole fleet (cases_builds.py). Usage: test_builds.py BUILD [WORD]"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import cases_builds  # noqa: E402
import kilnfleet  # noqa: E402

if __name__ == "__main__":
    sys.exit(kilnfleet.main(cases_builds, sys.argv))
